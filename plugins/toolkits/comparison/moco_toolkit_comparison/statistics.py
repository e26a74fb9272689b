"""Tests of many pairs, groups that cannot be told apart, and intervals of any statistic of a table.

Tables are arrays (systems, questions) of scores; NaN stands for a question that a system did not answer.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["gap_closed", "holm", "interval", "letters", "pairwise", "resampled"]

Array = npt.NDArray[np.float64]
_CHUNK = 4_000_000
"""How many resampled counts are held in memory at once."""


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjusted p-values (Holm 1979); what is None is no test and stays None."""
    tests = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - rank) * p))
        out[i] = largest
    return out


def pairwise(scores: Array) -> Array:
    """Return the two-sided p-value of every pair of systems, 1 on the diagonal.

    Exact McNemar tests where both score 0 and 1 alone; else sign-flip permutation tests: over all flips where they are few,
    else in their normal limit.
    """
    count = len(scores)
    out = np.ones((count, count))
    for i in range(count):
        for j in range(i):
            known = ~(np.isnan(scores[i]) | np.isnan(scores[j]))
            a, b = scores[i, known], scores[j, known]
            binary = bool(np.all((a == 0) | (a == 1)) and np.all((b == 0) | (b == 1)))
            difference = a - b
            out[i, j] = out[j, i] = (
                _mcnemar(int((difference > 0).sum()), int((difference < 0).sum())) if binary else _flips(difference)
            )
    return out


def _mcnemar(wins: int, losses: int) -> float:
    n = wins + losses
    if wins == losses:
        return 1.0
    logs = _log_factorials(1 << n.bit_length())
    k = min(wins, losses) + 1
    return min(1.0, 2 * float(np.exp(logs[n] - logs[:k] - logs[n : n - k : -1] - n * math.log(2)).sum()))


@functools.cache
def _log_factorials(size: int) -> Array:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size + 1)))])


def _flips(difference: Array) -> float:
    moved = difference[difference != 0]
    if not len(moved):
        return 1.0
    observed = abs(float(moved.sum()))
    if len(moved) <= 12:
        bits = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
        return float(np.mean(np.abs((2 * bits - 1) @ moved) >= observed - 1e-12))
    return math.erfc(observed / math.sqrt(2 * float(moved @ moved)))


def letters(differ: npt.NDArray[np.bool_]) -> list[str]:
    """Return the compact letter display of systems that stand in the order of their scores (Piepho 2004).

    Two systems share a letter exactly if they do not ``differ``.
    """
    groups: list[frozenset[int]] = [frozenset(range(len(differ)))] if len(differ) else []
    for i in range(len(differ)):
        for j in range(i):
            if differ[i, j]:
                split = [g - {k} if {i, j} <= g else g for g in groups for k in (i, j)]
                groups = [g for g in dict.fromkeys(split) if not any(g < other for other in split)]
    names = [*ascii_lowercase, *ascii_uppercase]
    out = [""] * len(differ)
    for place, group in enumerate(sorted(groups, key=sorted)):
        for i in group:
            out[i] += names[place] if place < len(names) else f"[{place}]"
    return out


def resampled(scores: Array, seed: int = 0, resamples: int = 2000) -> Array:
    """Return bootstrap means (resamples, systems): questions are drawn, the same for all systems of the table."""
    n, rng = scores.shape[1], np.random.default_rng(seed)
    known, filled = ~np.isnan(scores), np.nan_to_num(scores)
    whole, parts = bool(known.all()), []
    for start in range(0, resamples, step := max(1, _CHUNK // n)):
        rows = min(step, resamples - start)
        places = rng.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
        drawn = np.bincount(places.ravel(), minlength=rows * n).reshape(rows, n).astype(float)  # how often each is drawn
        sizes = float(n) if whole else np.maximum(drawn @ known.T, 1)
        parts.append(drawn @ filled.T / sizes)
    return np.concatenate(parts)


def interval(
    tables: Sequence[Array],
    statistic: Callable[[list[Array]], Any],
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a statistic of the systems' means.

    ``tables`` are resampled apart (the subsets or datasets of a macro-average); ``statistic`` gets the means of each as an
    array (resamples, systems) and returns one value per resample. Resamples without a value are left out.
    """
    values = np.asarray(statistic([resampled(t, seed + i, resamples) for i, t in enumerate(tables)]), dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def gap_closed(system: float, best: float, oracle: float) -> float | None:
    """Return which share of the way from the best single model to the oracle a system goes; None if there is no way."""
    return None if oracle - best < 1e-12 else (system - best) / (oracle - best)
