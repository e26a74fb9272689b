"""The graph: what is known of questions, models and the edges between them. Plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from moco_toolkit_routing import Outcomes

__all__ = ["Graph", "Scaling", "features", "labels"]

Array = Any
_ROUNDING = 1e-12


@attrs.frozen(kw_only=True, eq=False)
class Graph:
    """Q questions, N models.

    ``questions`` and ``tasks`` (Q, d), ``models`` (N, d): embeddings of the questions, of their tasks, of the models'
    descriptions. ``features`` (Q, N, 3): utility, cost and effect of an edge. ``labels`` (Q, N): 1 on the best edges of a
    question. ``known`` (Q, N): edges that exist; ``telling`` (Q,): questions whose edges differ, all others carry no label.
    """

    questions: Array
    tasks: Array
    models: Array
    features: Array
    labels: Array
    known: Array
    telling: Array

    def only(self, rows: Sequence[int]) -> Graph:
        """Return the graph of some questions."""
        rows = list(rows)
        return attrs.evolve(
            self,
            questions=self.questions[rows],
            tasks=self.tasks[rows],
            features=self.features[rows],
            labels=self.labels[rows],
            known=self.known[rows],
            telling=self.telling[rows],
        )


@attrs.frozen(kw_only=True)
class Scaling:
    """What costs are scaled by, from the least to the greatest on dev; both 0 where there is no cost signal."""

    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, outcomes: Outcomes) -> Scaling:
        if not outcomes.cost_signal:
            return cls()
        known = [cost for row in outcomes.costs for cost in row if np.isfinite(cost)]
        return cls(low=min(known), high=max(known))


def features(outcomes: Outcomes, weights: tuple[float, float], scaling: Scaling) -> Array:
    """Return [utility, cost, effect] of every edge (Q, N, 3). An unknown cost counts as its model's mean, or as 0."""
    effect = np.array(outcomes.scores, dtype=float).T.reshape(outcomes.questions, -1)
    cost = np.zeros_like(effect)
    if scaling.high > scaling.low:
        raw = np.array(outcomes.costs, dtype=float).T.reshape(effect.shape)
        means = np.nan_to_num(np.array(outcomes.mean_costs()), nan=scaling.low)
        cost = (np.where(np.isfinite(raw), raw, means[None, :]) - scaling.low) / (scaling.high - scaling.low)
    return np.stack([weights[0] * effect - weights[1] * cost, cost, effect], axis=-1)


def labels(utility: Array, tie: float) -> tuple[Array, Array]:
    """Return 1 on every question's best edges (Q, N), and whether the question tells the models apart (Q,)."""
    best = utility >= utility.max(1, keepdims=True) - tie - _ROUNDING
    return best.astype(float), ~best.all(1)
