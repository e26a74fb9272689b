"""The same question in other words: does a router choose as before?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs

from moco_core import Context, Question

__all__ = ["rewordings", "unchanged"]

_NEUTRAL = "Please read the following carefully."


def rewordings(question: Question) -> Mapping[str, Question]:
    """Return the question in other letter case, with other spacing, and behind a neutral sentence.

    Choices, earlier turns and the format of the answer stay as they are.
    """
    text = question.prompt
    return {
        "case": attrs.evolve(question, prompt=text.upper() if text == text.lower() else text.lower()),
        "spacing": attrs.evolve(question, prompt=text.replace(" ", "  ") + "\n"),
        "neutral": attrs.evolve(question, prompt=f"{_NEUTRAL} {text}"),
    }


async def unchanged(
    questions: Sequence[Question],
    routes: Sequence[int],
    choose: Callable[[Question, Context], Awaitable[int]],
    context: Context,
) -> dict[str, float]:
    """Return, per rewording, the share of questions that ``choose`` routes as ``routes`` says."""

    async def one(question: Question, scope: Context) -> dict[str, int]:
        reworded = rewordings(question)
        found = await scope.gather(choose(other, scope) for other in reworded.values())
        return dict(zip(reworded, found, strict=True))

    rows = await context.each(questions, one, label="rewordings")
    kinds = rows[0] if rows else {}
    return {k: sum(row[k] == route for row, route in zip(rows, routes, strict=True)) / len(rows) for k in kinds}
