"""Splitting dev, so that what is learnt on one part is judged on another: stratified, and decided by a generator."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

__all__ = ["folds", "holdout"]


def _dealt(strata: Sequence[Hashable], rng: random.Random) -> list[int]:
    """Return all places, one stratum after the other, shuffled within each; strata in the order of their first member."""
    groups: dict[Hashable, list[int]] = {}
    for place, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(place)
    for group in groups.values():
        rng.shuffle(group)
    return [place for group in groups.values() for place in group]


def holdout(strata: Sequence[Hashable], share: float, rng: random.Random) -> tuple[list[int], list[int]]:
    """Return (to learn from, held out), a partition of ``range(len(strata))``.

    About ``share`` of every stratum is held out, one question at least; nothing where there are fewer than two.
    """
    count = min(len(strata) - 1, max(1, round(share * len(strata))))
    if count < 1:
        return list(range(len(strata))), []
    dealt, total = _dealt(strata, rng), len(strata)
    held = {place for k, place in enumerate(dealt) if (k + 1) * count // total > k * count // total}
    return [q for q in range(total) if q not in held], sorted(held)


def folds(strata: Sequence[Hashable], count: int, rng: random.Random) -> list[list[int]]:
    """Return a partition of ``range(len(strata))`` into ``count`` folds, or as many as there are questions.

    Folds differ by at most one question, and so do the shares that each of them has of a stratum.
    """
    count = min(count, len(strata))
    out: list[list[int]] = [[] for _ in range(count)]
    for k, place in enumerate(_dealt(strata, rng)):
        out[k % count].append(place)
    return [sorted(fold) for fold in out]
