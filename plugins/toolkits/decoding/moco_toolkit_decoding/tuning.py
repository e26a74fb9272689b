"""How good one setting is: for methods that choose a threshold or a partner on dev."""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import Context, Example, PromptTooLong, Reply, System

__all__ = ["graded_replies", "mean_score"]


async def graded_replies(
    system: System, dev: Sequence[Example], context: Context, *, label: str
) -> list[tuple[float, Reply]]:
    """Let ``system`` answer the dev questions, all at once; return each score and reply. An answer without a score counts 0.

    A question too long for a model counts as an empty reply, as in :meth:`Context.evaluate`.
    """

    async def one(example: Example, scope: Context) -> tuple[float, Reply]:
        try:
            reply = await system.respond(example.question, scope)
        except PromptTooLong as error:
            context.warn(f"dev questions that are too long for a model count as empty replies ({error})")
            reply = Reply(text="", finish_reason="length")
        return (await scope.grade(example, reply)).value or 0.0, reply

    return await context.each(dev, one, label=label)


async def mean_score(system: System, dev: Sequence[Example], context: Context, *, label: str) -> float:
    """Return the mean score of :func:`graded_replies`."""
    graded = await graded_replies(system, dev, context, label=label)
    return sum(score for score, _ in graded) / len(graded)
