"""The choice among models, and the hand-over to the one that was chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from moco_core import Context, Model, ModelCallError, Question, Reply

__all__ = ["hand_over", "pick"]

_DIGITS = 9  # of a value that can decide: what differs later on is rounding


def pick(values: Sequence[float], costs: Sequence[float]) -> int | None:
    """Return the place of the largest value; of equal ones the cheaper, then the first. None if a value is not finite."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return max(range(len(values)), key=lambda i: (round(values[i], _DIGITS), -costs[i], -i))


async def hand_over(
    models: Sequence[Model], choice: int, fallback: int, question: Question, context: Context, **meta: Any
) -> Reply:
    """Have the chosen model answer with the run's own decoding; if it fails, the fallback does.

    The reply's record names who answered (``model``) and, where the chosen model failed, why (``failed``).
    """
    try:
        reply = await context.generate(models[choice], question, tell=context.tell)
        return Reply.of(reply, model=models[choice].name, **meta)
    except ModelCallError as error:
        if choice == fallback:
            raise
        reply = await context.generate(models[fallback], question)
        return Reply.of(reply, model=models[fallback].name, failed={models[choice].name: str(error)}, **meta)
