"""From comparisons to a ranking; position bias; how well a ranking agrees with scores. Pure functions.

``M[i][j]`` is how much reply i is preferred to reply j when i is shown first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["bias", "lead", "rank", "scores", "spearman"]

Matrix = Sequence[Sequence[float]]
_TIE = 1e-9


def lead(m: Matrix, i: int, j: int) -> float:
    """Return M_ij - M_ji, from which a bias for a position cancels."""
    return m[i][j] - m[j][i]


def scores(m: Matrix, how: str) -> list[float]:
    """Return s_i: the sum of leads (``max_logits``) or of wins in both orders, an exact 0 counting half (``max_wins``)."""
    n = range(len(m))
    if how == "max_logits":
        return [math.fsum(lead(m, i, j) for j in n if j != i) for i in n]
    return [math.fsum(_won(m[i][j]) + _won(-m[j][i]) for j in n if j != i) for i in n]


def _won(value: float) -> float:
    return 0.5 if value == 0 else float(value > 0)


def rank(s: Sequence[float], m: Matrix, skills: Sequence[float]) -> list[int]:
    """Return the replies, best first: by score; ties by wins among the tied, then by ``skills``, then by place.

    Two that tie are told apart by their own comparison; a cycle of them is not, and falls to the skills.
    """
    order = sorted(range(len(s)), key=lambda i: (-s[i], i))
    out: list[int] = []
    while order:
        tied = [i for i in order if s[order[0]] - s[i] <= _TIE]
        order = [i for i in order if i not in tied]
        wins = {i: sum((lead(m, i, j) > 0) - (lead(m, i, j) < 0) for j in tied if j != i) for i in tied}
        out += sorted(tied, key=lambda i: (-wins[i], -skills[i], i))
    return out


def bias(m: Matrix) -> tuple[float, float]:
    """Return the mean of (M_ij + M_ji) / 2, which is 0 for a judge without a favourite place, and the share of pairs in
    which both orders name the same place.
    """
    pairs = [(i, j) for i in range(len(m)) for j in range(i)]
    if not pairs:
        return 0.0, 0.0
    mean = math.fsum((m[i][j] + m[j][i]) / 2 for i, j in pairs) / len(pairs)
    return mean, sum(m[i][j] * m[j][i] > 0 for i, j in pairs) / len(pairs)


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the rank correlation of two rows, ties at their mean rank; None where one of them is constant."""
    x, y = _ranks(a), _ranks(b)
    mean = (len(x) + 1) / 2
    cov = math.fsum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    spread = math.fsum((p - mean) ** 2 for p in x) * math.fsum((q - mean) ** 2 for q in y)
    return cov / math.sqrt(spread) if spread else None


def _ranks(values: Sequence[float]) -> list[float]:
    return [sum(v < u for v in values) + (sum(v == u for v in values) + 1) / 2 for u in values]
