"""What metrics with a judge share: the judge, filling a prompt with untrusted texts, marks that such a text cannot close."""

from __future__ import annotations

import hashlib
import re

from moco_core import ConfigError, Model, Plugin

__all__ = ["fill", "judge_of", "mark_of"]

_SLOT = re.compile(r"\{(\w+)\}")


def judge_of(metric: str, pool: Plugin | None, name: str, key: str = "model") -> Model:
    """Return the model that a metric scores with: by its name in the pool of the metric's options, or its first.

    ``key`` is the option that names it. Raises ConfigError if there is no pool, or no such model in it.
    """
    if pool is None:
        raise ConfigError(
            f"metric.pool: missing; {metric} scores with a model, name its pool: "
            f"-m {metric} -o 'metric.pool={{name: POOL, models: [MODEL]}}'"
        )
    model: Model = pool.instance.pool.named(name or 0, f"metric.{key}")
    return model


def fill(template: str, **values: str) -> str:
    """Put texts into ``{name}`` slots in one pass: braces and slots inside a text stay as they are."""
    return _SLOT.sub(lambda m: values.get(m[1], m[0]), template)


def mark_of(text: str) -> str:
    """Return a line to stand before and after ``text``, made of its own digest: the text cannot hold it."""
    return "=== " + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] + " ==="
