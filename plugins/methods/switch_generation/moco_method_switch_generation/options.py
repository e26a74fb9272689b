"""The options of switch generation."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from moco_core import ConfigError, option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """Patches, and who chooses their writers."""

    patch_size: int = option(50, ge=1, help="tokens of a patch", paper="50")
    switcher: str | int = option(
        -1,
        help="the model that chooses, by name or index, zero-shot; train fits one on dev (needs the training toolkit)",
        paper="train",
    )
    switcher_writes: bool = option(True, help="whether the switcher is one of the writers too")
    choice: Literal["switcher", "random"] = option(
        "switcher", help="who names the writers: the switcher, or chance, as an ablation", paper="both (code)"
    )
    trace: Literal["list", "tags"] = option(
        "list",
        help="how the switcher reads the answer so far: a numbered list, or the authors' tags (for switchers trained on them)",
        paper="tags (code)",
    )
    force_ends: bool | None = option(
        None,
        help="give the first and the last patch to the last model; none: with three models",
        paper="with three models",
    )
    wait: bool = option(False, help="when a model ends the answer, append a cue and go on instead")
    max_waits: int = option(2, ge=0, help="how often wait does so per answer")
    wait_cue: str = option(" Wait,", help="the cue of wait", paper="Wait (s1)")
    answer_cue: str = option(
        "", help="text put once before the last patch of an answer that uses its whole budget; empty is off"
    )

    def __attrs_post_init__(self) -> None:
        if self.wait and not self.wait_cue.strip():
            raise ConfigError("wait_cue: expected some text, since wait is on")

    def deciding(self) -> dict[str, Any]:
        """Return what decides an answer beside models, question and sampling, as JSON data for its key."""
        return {
            "patch": self.patch_size,
            "choice": self.choice,
            "trace": self.trace,
            "ends": self.force_ends,
            "wait": [self.wait_cue, self.max_waits] if self.wait else None,
            "cue": self.answer_cue,
        }
