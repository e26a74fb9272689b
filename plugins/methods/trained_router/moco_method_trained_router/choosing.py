"""From a router's probabilities to one model: the largest less its cost, or strong from a threshold on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moco_method_trained_router.options import Options
from moco_toolkit_routing import pick

__all__ = ["calibrated", "choose"]


def choose(values: Sequence[float], costs: Sequence[float], threshold: float | None, options: Options) -> int | None:
    """Return the chosen model; None where a probability is not finite. ``costs`` are shares of the dearest model's."""
    if options.mode == "nway":
        return pick([v - options.cost_weight * c for v, c in zip(values, costs, strict=True)] if values else (), costs)
    if not values or not all(map(math.isfinite, values)):
        return None
    return int(values[1] >= (0.5 if threshold is None else threshold))


def calibrated(wins: Sequence[float], weak: Sequence[float], strong: Sequence[float], options: Options) -> float:
    """Return the threshold on the probability that the strong model wins, from held-out questions; 0.5 without any.

    ``fraction``: the share of strong calls is ``strong_fraction`` to within one question, if probabilities differ.
    ``score``: the best mean score with no larger share; of equal ones the fewest strong calls.
    """
    known = [q for q in range(len(wins)) if math.isfinite(wins[q])]
    if not known:
        return 0.5
    ordered = sorted(known, key=lambda q: -wins[q])
    above = math.nextafter(wins[ordered[0]], math.inf)  # nobody reaches it
    if options.calibrate == "fraction":
        count = round(options.strong_fraction * len(known))
        return wins[ordered[count - 1]] if count else above
    best, top, score = above, 0.0, 0.0
    for count, q in enumerate(ordered, 1):
        score += strong[q] - weak[q]
        whole = count == len(ordered) or wins[ordered[count]] < wins[q]  # a threshold never parts equals
        if whole and count <= options.strong_fraction * len(known) and score > top + 1e-9:
            best, top = wins[q], score
    return best
