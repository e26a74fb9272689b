"""The few examples LoraHub fits on, and the text each of them should be answered with."""

from __future__ import annotations

import random
from collections.abc import Sequence

from moco_core import ConfigError, Example

__all__ = ["few", "reference_text"]


def few(dev: Sequence[Example], count: int, rng: random.Random) -> list[Example]:
    """Return ``count`` dev examples, drawn by ``rng`` and spread over labels where the examples have any.

    Labels are right choices (``answer``) or references of closed label sets; they take turns until enough are drawn. The
    sample keeps the dev order. Raises ConfigError for an empty dev split.
    """
    if not dev:
        raise ConfigError("lorahub: the dev split is empty; it fits on dev examples, give it some")
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(dev):
        groups.setdefault(_label(example), []).append(i)
    queues = []
    for label in sorted(groups):
        rng.shuffle(groups[label])
        queues.append(groups[label])
    rng.shuffle(queues)
    chosen: list[int] = []
    while len(chosen) < min(count, len(dev)):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return [dev[i] for i in sorted(chosen)]


def _label(example: Example) -> str:
    if example.answer is not None:
        return str(example.answer)
    if example.question.answer_kind in ("label", "boolean") and example.references:
        return example.references[0]
    return ""


def reference_text(example: Example) -> str | None:
    """Return the first reference, or the letter of the right choice; None if the example has neither."""
    if example.references:
        return example.references[0]
    letters = example.question.letters
    if example.answer is not None and 0 <= example.answer < len(letters):
        return letters[example.answer]
    return None
