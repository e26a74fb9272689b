"""What agents are trained on: their own words only, where they come to what the majority of the debate holds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import attrs

from moco_method_multiagent_finetuning.debating import agreement, conclude
from moco_toolkit_discussion import Talk
from moco_toolkit_training import Demonstration

__all__ = ["Lesson", "lessons", "mixture"]

_SAME = 0.5
"""From this similarity on two answers are the same, where the metric grades."""


@attrs.define(kw_only=True)
class Lesson:
    """One agent's examples: first answers for its generator, whole dialogues for its critic, by how the agent began."""

    generation: list[Demonstration] = attrs.field(factory=list)
    corrected: list[Demonstration] = attrs.field(factory=list)
    kept: list[Demonstration] = attrs.field(factory=list)

    def counts(self) -> dict[str, int]:
        return {"generation": len(self.generation), "corrected": len(self.corrected), "kept": len(self.kept)}


def lessons(talks: Sequence[Talk]) -> tuple[list[Lesson], dict[str, Any]]:
    """Return every agent's examples, and how many questions had a pseudo-label.

    An agent's dialogue counts if it spoke in every round and ended with the majority's answer; it is learnt from the second
    of its own turns on.
    """
    out = [Lesson() for _ in talks[0].members]
    labelled = 0
    for talk in talks:
        label = conclude(talk).meta.get("answer")
        if label is None:
            continue
        labelled += 1
        supports, before = agreement(talk), talk.question.messages()[:-1]
        for agent, lesson in enumerate(out):
            keys = [row[agent].key for row in talk.answers]
            first, last = (key is not None and supports(label, key) >= _SAME for key in (keys[0], keys[-1]))
            turns = talk.turns[agent]
            if first:
                lesson.generation.append(Demonstration(messages=[*before, *turns[0]]))
            if last and len(turns) == len(talk.answers) > 1:
                messages = [*before, *(message for turn in turns for message in turn)]
                trained = range(len(before) + 3, len(messages), 2)
                (lesson.kept if first else lesson.corrected).append(Demonstration(messages=messages, trained=trained))
    return out, {"questions": len(talks), "labelled": labelled}


def mixture(lesson: Lesson, w: float, rng: random.Random) -> list[Demonstration]:
    """Return the most dialogues of which a share of ``w`` is corrected and the rest kept, drawn from the larger side.

    Where a side that is wanted is empty, the other one is all there is.
    """
    corrected, kept = lesson.corrected, lesson.kept
    if not corrected or not kept:
        return [*corrected, *kept]
    sides = [(corrected, w), (kept, 1 - w)]
    total = min(len(rows) / share for rows, share in sides if share)
    out = []
    for rows, share in sides:
        places = rng.sample(range(len(rows)), min(len(rows), round(share * total)))
        out += [rows[place] for place in sorted(places)]
    return out
