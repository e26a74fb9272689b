"""What a comparison could have seen: in plain Python, for commands that start quickly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

__all__ = ["detectable"]


def detectable(differences: Iterable[float], power: float = 0.8, level: float = 0.95) -> float | None:
    """Return the smallest true mean difference that a test of this size finds with ``power``; None without questions.

    ``differences`` are paired scores' differences; their mean square stays as observed (for scores of 0 and 1 it is the share
    of discordant pairs). Miettinen 1968: sqrt(n) d = z_a s + z_b sqrt(s^2 - d^2). At most s, where all disagreement is one way.
    """
    squares = [float(d) ** 2 for d in differences]
    n = len(squares)
    if not n:
        return None
    # no disagreement at all is not known to be none: one win and one loss more
    square = math.fsum(squares) / n or 2 / (n + 2)
    za, zb = NormalDist().inv_cdf(0.5 + level / 2), NormalDist().inv_cdf(power)
    low, high = 0.0, math.sqrt(square)
    for _ in range(60):
        middle = (low + high) / 2
        enough = math.sqrt(n) * middle >= za * math.sqrt(square) + zb * math.sqrt(max(square - middle**2, 0.0))
        low, high = (low, middle) if enough else (middle, high)
    return high
