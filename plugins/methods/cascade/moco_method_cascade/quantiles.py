"""Statistics of a reply's token log-probabilities: Chow scores and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["chow_average", "chow_quantile", "chow_sum"]


def chow_sum(logprobs: Sequence[float]) -> float:
    """Return sum_t log p_t, the log-probability of the reply; NaN without tokens."""
    return math.fsum(logprobs) if logprobs else math.nan


def chow_average(logprobs: Sequence[float]) -> float:
    """Return (1 / T) sum_t log p_t; NaN without tokens."""
    return math.fsum(logprobs) / len(logprobs) if logprobs else math.nan


def chow_quantile(logprobs: Sequence[float], level: float) -> float:
    """Return the ``level``-quantile of {log p_t}, linear between order statistics; NaN without tokens.

    ``level=0`` is the least certain token, 0.5 the median. Gupta et al., arXiv 2404.10136.
    """
    if not logprobs:
        return math.nan
    ordered = sorted(logprobs)
    position = level * (len(ordered) - 1)
    below = min(int(position), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    if ordered[below] == ordered[above]:  # also two equal infinities
        return ordered[below]
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
