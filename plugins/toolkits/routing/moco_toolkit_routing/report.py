"""What a router is worth on dev: against the best single model, the best choice per question, and by subset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from moco_toolkit_routing.outcomes import Outcomes

__all__ = ["report", "wins_by_fold"]


def report(outcomes: Outcomes, routes: Sequence[int]) -> dict[str, Any]:
    """Describe ``routes`` (the model of each question) as JSON data.

    ``oracle`` is the score of the best choice per question, ``gap_closed`` the share of the way from the best single model
    to it (None where there is no way), ``better`` and ``worse`` the questions on which the routed reply scores above and
    below the best single model's, ``sent`` how every model does on the questions that went to each. Give routes that were
    chosen without the questions' own scores: those of a router on what it was trained on say nothing.
    """
    everything = range(outcomes.questions)
    best = outcomes.best()
    figures = _figures(outcomes, routes, everything, best)
    subsets = sorted(set(outcomes.subsets))
    differences = [outcomes.scores[routes[q]][q] - outcomes.scores[best][q] for q in everything]
    means = outcomes.mean_costs()
    return {
        **figures,
        "best_single_model": outcomes.names[best],
        "better": sum(d > 0 for d in differences),
        "worse": sum(d < 0 for d in differences),
        "cost": _known(_mean([outcomes.costs[routes[q]][q] for q in everything])),
        "best_single_cost": _known(means[best]),
        "cost_unit": outcomes.unit,
        "sent": {
            name: dict(zip(outcomes.names, outcomes.means(where), strict=True))
            for i, name in enumerate(outcomes.names)
            if (where := [q for q in everything if routes[q] == i])
        },
        "subsets": {
            name: _figures(outcomes, routes, [q for q in everything if outcomes.subsets[q] == name], best)
            for name in (subsets if len(subsets) > 1 else ())
        },
    }


def _figures(outcomes: Outcomes, routes: Sequence[int], rows: Sequence[int], best: int) -> dict[str, Any]:
    routed = _mean([outcomes.scores[routes[q]][q] for q in rows])
    single = _mean([outcomes.scores[best][q] for q in rows])
    oracle = _mean([max(row[q] for row in outcomes.scores) for q in rows])
    counts = [sum(routes[q] == i for q in rows) for i in range(len(outcomes.names))]
    return {
        "questions": len(rows),
        "routed": routed,
        "best_single": single,
        "oracle": oracle,
        "gap_closed": (routed - single) / (oracle - single) if oracle > single else None,
        "share": {name: n / len(rows) for name, n in zip(outcomes.names, counts, strict=True) if n},
    }


def wins_by_fold(outcomes: Outcomes, routes: Sequence[int], parts: Sequence[Sequence[int]]) -> dict[str, int]:
    """Count the folds in which routing scores above, or as, the single model that is best on the other folds."""
    ahead = []
    for part in parts:
        rest = [q for q in range(outcomes.questions) if q not in set(part)]
        single = outcomes.best(rest)
        ahead.append(round(math.fsum(outcomes.scores[routes[q]][q] - outcomes.scores[single][q] for q in part), 9))
    return {"folds": len(parts), "won": sum(a > 0 for a in ahead), "tied": sum(a == 0 for a in ahead)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _known(value: float) -> float | None:
    """JSON has no NaN: what is unknown is None."""
    return value if math.isfinite(value) else None
