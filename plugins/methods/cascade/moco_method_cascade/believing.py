"""How likely a reply is right, as a trained scorer believes."""

from __future__ import annotations

import math

from moco_core import Context, Message, Model, Question

__all__ = ["believed", "conversation"]


def conversation(question: Question, text: str) -> tuple[Message, ...]:
    """Return what a scorer reads: the question as it was asked, and the reply."""
    return (*question.messages(), Message("assistant", text))


async def believed(scorer: Model | None, question: Question, text: str, context: Context) -> float:
    """Return the probability that a reply is right; NaN without a scorer or where it gives none. Raises ModelCallError."""
    if scorer is None:
        return math.nan
    logits = await context.reward(scorer, conversation(question, text))
    if len(logits) != 2 or not all(map(math.isfinite, logits)):
        return math.nan
    return 1 / (1 + math.exp(min(700.0, logits[0] - logits[1])))
