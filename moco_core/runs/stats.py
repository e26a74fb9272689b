"""Scores with their uncertainty: intervals of a mean, and paired comparisons on the same questions.

Everything here is exact or a seeded bootstrap, in plain Python, so that a report does not depend on what is installed.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import attrs

from moco_core.types import Unit

__all__ = ["Comparison", "Estimate", "compare", "estimate", "mcnemar_exact", "wilson"]

RESAMPLES = 4000
_LEVEL = 0.95


@attrs.frozen(kw_only=True)
class Estimate:
    """A mean over ``n`` units with its 95 % interval [low, high]."""

    mean: float
    low: float
    high: float
    n: int


@attrs.frozen(kw_only=True)
class Comparison:
    """System minus baseline on the ``n`` units both have.

    ``low`` and ``high`` bound the mean difference (95 % paired bootstrap, percentile). ``p_value`` is the exact two-sided
    McNemar test where all scores are 0 or 1, else the two-sided sign-flip permutation test; ``wins`` and ``losses`` count
    the units where the system is better or worse.
    """

    difference: float
    low: float
    high: float
    n: int
    wins: int
    losses: int
    p_value: float
    test: str


def wilson(successes: int, n: int, level: float = _LEVEL) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927). (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_exact(wins: int, losses: int) -> float:
    """Return the exact two-sided p-value of McNemar's test from the discordant pairs (binomial with p = 1/2)."""
    n, k = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    # the ratio of two exact integers: 2**n alone overflows a float beyond n = 1023
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, float(2 * tail * 10**18 // 2**n) / 1e18) if n > 1000 else min(1.0, 2 * tail / 2**n)


def _bootstrap_means(values: Sequence[float], seed: int, resamples: int = RESAMPLES) -> list[float]:
    """Return sorted bootstrap means. Distinct values are drawn by weight, which equals drawing units."""
    counts = Counter(values)
    distinct = sorted(counts)
    weights = [counts[v] for v in distinct]
    n, rng = len(values), random.Random(seed)
    if len(distinct) == 1:
        return [distinct[0]] * resamples
    return sorted(math.fsum(rng.choices(distinct, weights, k=n)) / n for _ in range(resamples))


def _percentiles(ordered: Sequence[float], level: float = _LEVEL) -> tuple[float, float]:
    tail = (1 - level) / 2
    last = len(ordered) - 1
    return ordered[math.floor(tail * last)], ordered[math.ceil((1 - tail) * last)]


def estimate(units: Sequence[Unit], seed: int = 0) -> Estimate | None:
    """Return the mean score with its interval: Wilson where all scores are 0 or 1, else bootstrap. None without units."""
    values = [u.score for u in units]
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if set(values) <= {0.0, 1.0}:
        low, high = wilson(round(sum(values)), len(values))
    else:
        low, high = _percentiles(_bootstrap_means(values, seed))
    return Estimate(mean=mean, low=low, high=high, n=len(values))


def compare(system: Sequence[Unit], baseline: Sequence[Unit], seed: int = 0) -> Comparison | None:
    """Compare two systems on the units they share; None if they share none."""
    theirs: Mapping[str, float] = {u.id: u.score for u in baseline}
    pairs = [(u.score, theirs[u.id]) for u in system if u.id in theirs]
    if not pairs:
        return None
    differences = [a - b for a, b in pairs]
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    low, high = _percentiles(_bootstrap_means(differences, seed))
    if all(v in (0.0, 1.0) for pair in pairs for v in pair):
        p_value, test = mcnemar_exact(wins, losses), "mcnemar"
    else:
        p_value, test = _sign_flip(differences, seed), "permutation"
    return Comparison(
        difference=math.fsum(differences) / len(differences),
        low=low,
        high=high,
        n=len(differences),
        wins=wins,
        losses=losses,
        p_value=p_value,
        test=test,
    )


def _sign_flip(differences: Sequence[float], seed: int) -> float:
    """Return the two-sided p-value of the paired permutation test, by ``RESAMPLES`` seeded sign flips."""
    moved = [d for d in differences if d != 0]
    if not moved:
        return 1.0
    observed = abs(math.fsum(moved))
    rng = random.Random(seed)
    extreme = 0
    for _ in range(RESAMPLES):
        bits = rng.getrandbits(len(moved))
        total = math.fsum(d if bits >> i & 1 else -d for i, d in enumerate(moved))
        extreme += abs(total) >= observed - 1e-12
    return (extreme + 1) / (RESAMPLES + 1)
