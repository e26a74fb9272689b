"""How alike voters err: weights and majorities count on errors that are independent."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["correlations"]


def correlations(scores: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Return the Pearson correlation of every two voters' scores over the questions that both have one for.

    ``scores`` has a row per voter. Of right and wrong it is the phi coefficient of their errors: 1 if they fail together, 0 if
    independently. None for a voter whose scores are all equal, which correlate with nothing.
    """
    return [[_correlation(one, other) for other in scores] for one in scores]


def _correlation(one: Sequence[float | None], other: Sequence[float | None]) -> float | None:
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    means = [math.fsum(p[side] for p in pairs) / len(pairs) for side in (0, 1)]
    spread = [math.fsum((p[side] - means[side]) ** 2 for p in pairs) for side in (0, 1)]
    if not spread[0] or not spread[1]:
        return None
    shared = math.fsum((a - means[0]) * (b - means[1]) for a, b in pairs)
    return shared / math.sqrt(spread[0] * spread[1])
