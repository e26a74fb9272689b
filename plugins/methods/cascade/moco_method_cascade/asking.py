"""One level's turn: its reply, how sure it is of it, and what both cost."""

from __future__ import annotations

import math

import attrs

from moco_core import Context, Generation, Model, Question
from moco_method_cascade.confidence import Confidence, measure
from moco_method_cascade.head import Head
from moco_method_cascade.options import Options
from moco_toolkit_routing import Pricing

__all__ = ["Step", "ask"]


@attrs.frozen(kw_only=True)
class Step:
    """One level's reply to one question, its confidence, and what both cost (NaN if that is unknown).

    ``reply`` is None where the call failed. ``mass`` is that of :class:`Confidence`.
    """

    reply: Generation | None = None
    confidence: float = math.nan
    mass: float | None = None
    cost: float = 0.0
    check: float = 0.0


async def ask(
    level: int,
    model: Model,
    question: Question,
    context: Context,
    options: Options,
    prices: Pricing,
    *,
    check: bool,
    head: Head | Model | None = None,
) -> Step:
    """Have one level answer with the unmodified task prompt, and measure its confidence if ``check``.

    Raises ModelCallError if there is no reply.
    """
    settings = options.sampling(context.sampling)
    # what is not checked is the reply
    reply = await context.generate(model, question, settings, sample=0, tell=None if check else context.tell)
    sure = Confidence(value=math.nan)
    if check:
        sure = await measure(model, question, reply, context, options, head)
    return Step(
        reply=reply,
        confidence=sure.value,
        mass=sure.mass,
        cost=prices.cost(level, reply),
        check=math.fsum(prices.cost(level, call) for call in sure.calls),
    )
