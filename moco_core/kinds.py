"""The kinds of plugin, their entry-point groups, and the version of the hook specification."""

__all__ = ["GROUPS", "KINDS", "OBSERVER_GROUP", "SPEC"]

SPEC = 1
"""Version of the hook specification. A plugin states it in its keywords as ``spec-1``; another number is refused."""

KINDS = ("pool", "method", "dataset", "metric")
GROUPS = {kind: f"moco.{kind}" for kind in KINDS}
OBSERVER_GROUP = "moco.observer"
