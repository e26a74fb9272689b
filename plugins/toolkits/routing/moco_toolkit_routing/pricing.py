"""What a call costs: money where prices are known, else compute, else tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from moco_core import Generation, Model, Usage

__all__ = ["Pricing", "pricing"]


@attrs.frozen(kw_only=True)
class Pricing:
    """Cost per token read and written, one pair per model, and the unit of the sums.

    ``listed`` tells that the prices are the pool's own, so that an engine may know better what a call cost.
    """

    unit: str
    rates: tuple[tuple[float, float], ...]
    listed: bool = False

    def cost(self, model: int, call: Generation | Usage) -> float:
        """Return what a call of a model (by its place) cost; NaN if that is unknown, as without any usage."""
        if isinstance(call, Generation):
            if self.listed and "cost" in call.meta:
                known = call.meta["cost"]
                return math.nan if known is None else float(known)
            call = call.usage
        if not call.prompt_tokens:
            return math.nan
        read, written = self.rates[model]
        return read * call.prompt_tokens + written * call.completion_tokens


def pricing(models: Sequence[Model], prices: Sequence[float] | None) -> Pricing:
    """Return the prices of all models in one unit.

    ``prices`` are money per million tokens, read or written. Without them: the models' own prices if all have some;
    else billions of parameters times tokens, which is proportional to compute; else tokens.
    """
    if prices is not None:
        return Pricing(unit="money", rates=tuple((price / 1e6, price / 1e6) for price in prices))
    own = [model.prices for model in models if model.prices is not None]
    if len(own) == len(models):
        rates = tuple((read / 1e6, written / 1e6) for read, written in own)
        return Pricing(unit="money", rates=rates, listed=True)
    sizes = [model.parameters for model in models if model.parameters]
    if len(sizes) == len(models):
        return Pricing(unit="billion parameters x tokens", rates=tuple((size / 1e9, size / 1e9) for size in sizes))
    return Pricing(unit="tokens", rates=((1.0, 1.0),) * len(models))
