"""Trust: who convinced whom, and who is left out. Pure functions over tables.

``table[i][j]`` in [0, 1] says how far member i's reply to one question stood up against member j's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["Table", "find_bad", "suspects", "trust_in"]

Table = Sequence[Sequence[float]]


def trust_in(tables: Sequence[Table], members: Sequence[int]) -> dict[int, float]:
    """Return each member's mean over all questions and all other ``members``; 1 where there is nobody else."""
    if len(members) < 2 or not tables:
        return dict.fromkeys(members, 1.0)
    pairs = len(tables) * (len(members) - 1)
    return {i: math.fsum(t[i][j] for t in tables for j in members if j != i) / pairs for i in members}


def suspects(trust: dict[int, float], ratio: float) -> dict[int, float]:
    """Return the members that are trusted less than ``ratio`` times as much as the most trusted one, with that share."""
    top = max(trust.values(), default=0.0)
    return {i: value / top for i, value in trust.items() if value < ratio * top - 1e-9}


def find_bad(
    tables: Sequence[Table], members: Sequence[int], ratio: float, able: Callable[[dict[int, float]], bool]
) -> tuple[dict[int, float], dict[int, float]]:
    """Return who is bad of ``members``, each with its share of the highest trust, and everybody's trust.

    The least trusted suspect goes first (of equals the last in the pool), and trust is measured anew among those who are left:
    the agreement of colluders counts for less with each that goes, and what was measured then stands. One stays who would
    make the bad too many for the method to be ``able``.
    """
    left, told, gone = list(members), dict[int, float](), dict[int, float]()
    while True:
        trust = trust_in(tables, left)
        told |= trust
        shares = suspects(trust, ratio)
        bad = sorted(shares, key=lambda i: (trust[i], -i))
        worst = next((i for i in bad if able(gone | {i: shares[i]})), None)
        if worst is None:
            return gone, told
        left.remove(worst)
        gone[worst] = shares[worst]
