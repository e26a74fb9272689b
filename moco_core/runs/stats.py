"""Scores with their uncertainty: the interval of a mean, and the paired comparison of two systems on the same questions.

Everything here is a closed form, exact, or a seeded resampling, in plain Python: what a run says does not depend on what is
installed.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import attrs

from moco_core.types import Unit

RESAMPLES = 4000
_LARGE = 1000
"""From this many units on, means are normal for every purpose here, and nothing is resampled."""
_LEVEL = 0.95


@attrs.frozen(kw_only=True)
class Estimate:
    """A mean over ``n`` units with its interval [low, high], at 95 % unless asked otherwise."""

    mean: float
    low: float
    high: float
    n: int


@attrs.frozen(kw_only=True)
class Versus:
    """System minus baseline on the ``n`` units both have.

    ``low`` and ``high`` bound the mean difference, at 95 % unless asked otherwise. Where all scores are 0 or 1 the interval is
    Bonett and Price's and ``p_value`` the exact two-sided McNemar test; else they are a bootstrap over units (percentile) and
    the two-sided sign-flip permutation test. ``wins`` and ``losses`` count the units where the system is better or worse.
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
    z = _quantile(level)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bonett_price(wins: int, losses: int, n: int, level: float = _LEVEL) -> tuple[float, float]:
    """Return the adjusted Wald interval of a difference of paired proportions (Bonett and Price 2012).

    One win and one loss are added: few discordant pairs, or none, are no certainty.
    """
    centre = (wins - losses) / (n + 2)
    half = _quantile(level) * math.sqrt(((wins + losses + 2) / (n + 2) - centre * centre) / (n + 2))
    return max(-1.0, centre - half), min(1.0, centre + half)


def mcnemar_exact(wins: int, losses: int) -> float:
    """Return the exact two-sided p-value of McNemar's test from the discordant pairs (binomial with p = 1/2)."""
    n, k = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    if n <= _LARGE:  # 2**n overflows a float beyond n = 1023
        return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / float(2**n))
    terms = (math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1))
    return min(1.0, 2 * math.fsum(math.exp(t - n * math.log(2)) for t in terms))


def estimate(units: Sequence[Unit], seed: int = 0, level: float = _LEVEL) -> Estimate | None:
    """Return the mean score with its interval: Wilson where all scores are 0 or 1, else bootstrap. None without units."""
    values = [u.score for u in units]
    if not values:
        return None
    if set(values) <= {0.0, 1.0}:
        low, high = wilson(round(sum(values)), len(values), level)
    else:
        low, high = _bootstrap(values, seed, level)
    return Estimate(mean=math.fsum(values) / len(values), low=low, high=high, n=len(values))


def compare(system: Sequence[Unit], baseline: Sequence[Unit], seed: int = 0, level: float = _LEVEL) -> Versus | None:
    """Compare two systems on the units they share; None if they share none."""
    theirs = {u.id: u.score for u in baseline}
    pairs = [(u.score, theirs[u.id]) for u in system if u.id in theirs]
    if not pairs:
        return None
    differences = [a - b for a, b in pairs]
    n, wins, losses = len(pairs), sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if all(v in (0.0, 1.0) for pair in pairs for v in pair):
        low, high = bonett_price(wins, losses, n, level)
        p_value, test = mcnemar_exact(wins, losses), "mcnemar"
    else:
        low, high = _bootstrap(differences, seed, level)
        p_value, test = _sign_flip(differences, seed), "permutation"
    return Versus(
        difference=math.fsum(differences) / n,
        low=low,
        high=high,
        n=n,
        wins=wins,
        losses=losses,
        p_value=p_value,
        test=test,
    )


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)


def _bootstrap(values: Sequence[float], seed: int, level: float) -> tuple[float, float]:
    """Return the percentile interval of a mean. Distinct values are drawn by weight, which equals drawing units."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n > _LARGE:
        half = _quantile(level) * math.sqrt(math.fsum((v - mean) ** 2 for v in values)) / n
        return mean - half, mean + half
    counts = Counter(values)
    distinct = sorted(counts)
    if len(distinct) == 1:
        return distinct[0], distinct[0]
    weights, rng = [counts[v] for v in distinct], random.Random(seed)
    means = sorted(math.fsum(rng.choices(distinct, weights, k=n)) / n for _ in range(RESAMPLES))
    tail, last = (1 - level) / 2, RESAMPLES - 1
    return means[math.floor(tail * last)], means[math.ceil((1 - tail) * last)]


def _sign_flip(differences: Sequence[float], seed: int) -> float:
    """Return the two-sided p-value of the paired permutation test: over all sign flips where they are few, else some."""
    moved = [d for d in differences if d != 0]
    observed = abs(math.fsum(moved))
    if len(moved) > _LARGE:
        return math.erfc(observed / math.sqrt(2 * math.fsum(d * d for d in moved)))
    everything, rng = 2 ** len(moved), random.Random(seed)
    exact = everything <= RESAMPLES
    flips: Iterable[int] = range(everything) if exact else (rng.getrandbits(len(moved)) for _ in range(RESAMPLES))
    extreme = sum(
        abs(math.fsum(d if bits >> i & 1 else -d for i, d in enumerate(moved))) >= observed - 1e-12 for bits in flips
    )
    return extreme / everything if exact else (extreme + 1) / (RESAMPLES + 1)
