"""Does discussing help here? What rounds repair and break on dev, and the whole against the best single model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from moco_core import Context, Evaluation, Example, Pool, Question, Reply
from moco_method_multiagent_refine.options import Options
from moco_toolkit_discussion import Talk

__all__ = ["check_dev", "flips", "sampled"]


class Discussing(Protocol):
    """What is checked: a discussion and its conclusion."""

    @property
    def pool(self) -> Pool: ...

    @property
    def options(self) -> Options: ...

    async def discuss(self, question: Question, context: Context) -> Talk: ...

    async def conclude(self, talk: Talk) -> Reply: ...


def sampled(dev: int, options: Options, context: Context) -> list[int]:
    """Return the places of the dev examples that are discussed: all, or so many drawn by the run's seed and the option's."""
    if options.dev_sample is None or options.dev_sample >= dev:
        return list(range(dev))
    return sorted(context.rng("multiagent_refine", "dev", options.seed).sample(range(dev), options.dev_sample))


def flips(scores: Sequence[Sequence[Sequence[float]]]) -> list[dict[str, float]]:
    """Return per round the mean score of the models' replies, and how many rose and fell since the round before.

    ``scores`` are by question, round and model; a discussion that ended early has fewer rounds.
    """
    out = []
    for number in range(max(len(talk) for talk in scores)):
        held = [talk for talk in scores if len(talk) > number]
        now = [score for talk in held for score in talk[number]]
        before = [score for talk in held for score in talk[number - 1]] if number else now
        out.append(
            {
                "round": number,
                "mean": math.fsum(now) / len(now),
                "repaired": sum(a > b for a, b in zip(now, before, strict=True)),
                "broken": sum(a < b for a, b in zip(now, before, strict=True)),
            }
        )
    return out


async def check_dev(system: Discussing, dev: Sequence[Example], evaluation: Evaluation, context: Context) -> None:
    """Discuss dev questions; note the flips per round and the final score, warn if the best single model is better."""

    async def one(example: Example, scope: Context) -> tuple[list[list[float]], float | None]:
        async def grade(text: str | None) -> float:
            return 0.0 if text is None else (await scope.grade(example, Reply(text=text))).value or 0.0

        talk = await system.discuss(example.question, scope)
        scores = [await scope.gather(grade(text) for text in row) for row in talk.texts]
        return scores, (await scope.grade(example, await system.conclude(talk))).value

    where = sampled(len(dev), system.options, context)
    rows = await context.each([dev[j] for j in where], one, label="discussions of dev")
    final = math.fsum(score or 0.0 for _, score in rows) / len(rows)
    alone = [math.fsum(row[j] or 0.0 for j in where) / len(where) for row in evaluation.scores]
    best = max(range(len(alone)), key=lambda i: (alone[i], -i))
    context.note(rounds=flips([scores for scores, _ in rows]), discussed_dev_score=final, best_single_dev_score=alone[best])
    if final < alone[best]:
        context.warn(
            f"multiagent_refine: on dev, discussing scores {final:.3f} and the best single model "
            f"({evaluation.names[best]}) {alone[best]:.3f}"
        )
