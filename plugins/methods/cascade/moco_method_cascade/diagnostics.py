"""Can a cascade work here? How well a confidence tells right from wrong, and what the whole costs at every strictness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from moco_method_cascade.thresholds import Table, by_fraction, simulate

__all__ = ["auroc", "curve"]


def auroc(confidence: Sequence[float], score: Sequence[float]) -> float | None:
    """Return the chance that of two replies with different scores the better one has the higher confidence; ties count half.

    For scores of 0 and 1 it is the area under the ROC curve: 0.5 tells nothing. Replies without a finite confidence count as
    the least sure. None if all scores are equal.
    """
    rows = [(c if math.isfinite(c) else -math.inf, s) for c, s in zip(confidence, score, strict=True)]
    right, pairs = 0.0, 0
    for i, (sure, scored) in enumerate(rows):
        for other_sure, other_scored in rows[:i]:
            if scored != other_scored:
                pairs += 1
                ahead = (sure > other_sure) - (sure < other_sure)
                right += (1 + ahead * (1 if scored > other_scored else -1)) / 2
    return right / pairs if pairs else None


def curve(table: Table, points: int = 10) -> list[dict[str, Any]]:
    """Return mean score and cost on dev for accepted shares 0, 1/points, ..., 1 at every level, beside random deferral.

    ``random`` is the expected score if the same shares stopped by chance: a confidence is worth what lies above it.
    """
    means = [math.fsum(row) / table.questions for row in table.score]
    out = []
    for point in range(points + 1):
        share = point / points
        if point in (0, points):
            thresholds = [math.inf if point == 0 else -math.inf] * (table.levels - 1)
        else:
            thresholds = by_fraction(table.confidence, [share] * (table.levels - 1))[0]
        score, cost, outcomes = simulate(table, thresholds)
        stopped = [outcome.accepted / table.questions for outcome in outcomes]
        chance = math.fsum(p * mean for p, mean in zip(stopped, means, strict=True))
        out.append({"accept": share, "score": score, "cost": cost if math.isfinite(cost) else None, "random": chance})
    return out
