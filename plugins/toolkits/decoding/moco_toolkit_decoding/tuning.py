"""How good one setting is: for methods that choose a threshold or a partner on dev."""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import Context, Example, System

__all__ = ["mean_score"]


async def mean_score(system: System, dev: Sequence[Example], context: Context, *, label: str) -> float:
    """Let ``system`` answer the dev questions, all at once, and return its mean score; an answer without one counts 0."""

    async def one(example: Example, scope: Context) -> float:
        graded = await scope.grade(example, await system.respond(example.question, scope))
        return graded.value or 0.0

    scores = await context.each(dev, one, label=label)
    return sum(scores) / len(scores)
