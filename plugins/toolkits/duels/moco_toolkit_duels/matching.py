"""Match-making: who meets whom, by ratings and chance."""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["closest", "matches", "opponent"]


def closest(ratings: Sequence[float], model: int, count: int, *, farthest: bool = False) -> list[int]:
    """Return the ``count`` models nearest in rating to one, or farthest from it; ties go to the lower index."""
    sign = -1 if farthest else 1
    others = [j for j in range(len(ratings)) if j != model]
    return sorted(others, key=lambda j: (sign * abs(ratings[model] - ratings[j]), j))[:count]


def opponent(ratings: Sequence[float], model: int, alpha: float, count: int, rng: random.Random) -> int:
    """Draw an opponent: with probability ``alpha`` any other model, else one of the ``count`` closest, all alike."""
    anybody = rng.random() < alpha
    return rng.choice(closest(ratings, model, len(ratings) if anybody else count))


def matches(
    count: int, ratings: Sequence[float], alpha: float, opponents: int, rng: random.Random
) -> list[tuple[int, int]]:
    """Return ``count`` duels. Every block of as many duels as there are models has each of them once as its first duellist, in
    a drawn order; those of an incomplete block are drawn freely.
    """
    models = len(ratings)
    firsts: list[int] = []
    for _ in range(count // models):
        firsts += rng.sample(range(models), models)
    firsts += [rng.randrange(models) for _ in range(count % models)]
    return [(first, opponent(ratings, first, alpha, opponents, rng)) for first in firsts]
