"""Quality against cost: the curve of a router as its cost term or threshold moves, and the area below it.

The frontier is that of RouterBench (Hu et al., arXiv 2403.12031): the upper concave hull, since two policies can be mixed.
PGR, APGR and CPT are RouteLLM's (Ong et al., arXiv 2406.18665).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from moco_toolkit_routing.answering import pick
from moco_toolkit_routing.outcomes import Outcomes

__all__ = ["area", "cost_curve", "strong_curve"]

_LAMBDAS = (0.0, *(10 ** (k / 4 - 3) for k in range(17)))
"""Cost terms tried: 0, and 0.001 to 10 in steps of 10^(1/4); where costs are shares of 1, more changes nothing."""


def area(points: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """Return the mean of the frontier of (cost, score) points over costs from ``low`` to ``high``.

    The frontier is non-decreasing: a cheaper policy may always stand in for a dearer one. Below the cheapest point it is 0.
    """
    hull: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if hull and score <= hull[-1][1]:
            continue
        while len(hull) > 1 and _above(hull[-2], (cost, score), hull[-1]):
            hull.pop()
        hull.append((cost, score))
    hull.append((max(high, hull[-1][0]), hull[-1][1]))
    total = 0.0
    for (a, below), (b, above) in pairwise(hull):
        left, right = max(a, low), min(b, high)
        if left < right:
            slope = (above - below) / (b - a)
            total += (right - left) * (below + slope * ((left + right) / 2 - a))
    return total / (high - low)


def _above(a: tuple[float, float], b: tuple[float, float], point: tuple[float, float]) -> bool:
    """Return whether the line from a to b passes above ``point`` (or through it)."""
    return a[1] + (b[1] - a[1]) * (point[0] - a[0]) / (b[0] - a[0]) >= point[1]


def cost_curve(outcomes: Outcomes, values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return mean score and mean cost of the route argmax(values - lambda * cost) for growing lambda.

    ``values[q][i]`` are the router's of model i on question q, given by a router that has not seen the question; rows that
    are empty or not finite go to the best single model. ``area`` is the mean score over costs from the cheapest model's to
    the dearest's, ``area_of_singles`` that of mixtures of single models: a router is worth the difference. Empty if costs
    are unknown or equal.
    """
    if not outcomes.cost_signal:
        return {}
    costs, means, best = outcomes.relative_costs, outcomes.means(), outcomes.best()
    points: list[dict[str, float]] = []
    for weight in _LAMBDAS:
        routes = []
        for row in values:
            choice = pick([v - weight * c for v, c in zip(row, costs, strict=True)] if row else (), costs)
            routes.append(best if choice is None else choice)
        n = outcomes.questions
        point = {
            "lambda": weight,
            "score": math.fsum(outcomes.scores[i][q] for q, i in enumerate(routes)) / n,
            "cost": math.fsum(costs[i] for i in routes) / n,
        }
        if not points or (point["score"], point["cost"]) != (points[-1]["score"], points[-1]["cost"]):
            points.append(point)
    low, high = min(costs), max(costs)
    singles = list(zip(costs, means, strict=True))
    cheapest = min(singles, key=lambda p: (p[0], -p[1]))
    routed = [(p["cost"], p["score"]) for p in points]
    return {
        "points": points,
        "area": area([*routed, cheapest], low, high),
        "area_of_singles": area(singles, low, high),
        "cost_is": "share of the dearest model's",
    }


def strong_curve(wins: Sequence[float], weak: Sequence[float], strong: Sequence[float]) -> dict[str, Any]:
    """Return RouteLLM's figures of a router between a weak and a strong model.

    ``wins[q]`` is the probability that the strong model wins question q; ``weak`` and ``strong`` are the scores. ``points``
    have the share of strong calls, the mean score and PGR (None where the models score alike) at every threshold; ``apgr`` is
    the area under PGR over the share, ``cpt`` the least share with a PGR of 50 % and 80 %.
    """
    n = len(wins)
    order = sorted(range(n), key=lambda q: -wins[q])
    low, high = math.fsum(weak) / n, math.fsum(strong) / n
    points: list[dict[str, Any]] = []
    score, sent = low, 0
    while True:
        gained = None if high == low else (score - low) / (high - low)
        points.append({"strong": sent / n, "score": score, "pgr": gained})
        if sent == n:
            break
        tied = [q for q in order[sent:] if wins[q] == wins[order[sent]]]  # one threshold sends them all
        score += math.fsum(strong[q] - weak[q] for q in tied) / n
        sent += len(tied)
    if high == low:
        return {"points": points, "apgr": None, "cpt": {}}
    pairs = pairwise(points)
    apgr = math.fsum((b["strong"] - a["strong"]) * (a["pgr"] + b["pgr"]) / 2 for a, b in pairs)
    cpt = {str(x): min((p["strong"] for p in points if p["pgr"] >= x / 100), default=None) for x in (50, 80)}
    return {"points": points, "apgr": apgr, "cpt": cpt}
