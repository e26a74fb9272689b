"""Reputations of models: ratings that move with every duel. Jiang et al., "Sparta Alignment", arXiv 2506.04721."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import attrs

from moco_core.converters import floats

__all__ = ["Scale", "Standings"]


@attrs.frozen(kw_only=True)
class Scale:
    """How far ratings move.

    A duel moves model i by ``(K_u / scaling) (s_i - s_o) tanh(sigma_i) max(gap, epsilon)``. ``K_u`` is ``initial_k`` times
    ``decay_rate ** (u / decay_steps)``, ``min_k`` at least, u counting all duels so far, this one included. The gap is
    ``|Phi(z) - Phi(-z)|`` with ``z = (R_i - R_o) / sqrt(sigma_i^2 + sigma_o^2)`` (``published``: the same whoever wins, least
    among equals), or ``1 - Phi(z)`` of the winner (``upset``: large where the weaker one wins).
    """

    initial: float = 100.0
    deviation: float = 0.5
    floor: float = 10.0
    initial_k: float = 10.0
    min_k: float = 5.0
    decay_rate: float = 0.9
    decay_steps: float = 10.0
    scaling: float = 20.0
    window: int = 10
    min_deviation: float = 0.1
    epsilon: float = 0.01
    gap: Literal["published", "upset"] = "published"

    def k(self, update: int) -> float:
        """Return K of the duel with that number, from 1."""
        return max(self.min_k, self.initial_k * math.pow(self.decay_rate, update / self.decay_steps))

    def gap_of(self, z: float) -> float:
        """Return the gap term; ``z`` is seen from the winner's side."""
        share = math.erf(abs(z) / math.sqrt(2)) if self.gap == "published" else 0.5 * math.erfc(z / math.sqrt(2))
        return max(share, self.epsilon)


def _rows(values: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values)


@attrs.frozen(kw_only=True)
class Standings:
    """Every model's rating, how much it moves of late (sigma), and its last movements; ``updates`` counts all duels."""

    ratings: tuple[float, ...] = attrs.field(converter=floats)
    deviations: tuple[float, ...] = attrs.field(converter=floats)
    deltas: tuple[tuple[float, ...], ...] = attrs.field(converter=_rows)
    updates: int = 0

    @classmethod
    def start(cls, ratings: Sequence[float], scale: Scale) -> Standings:
        return cls(ratings=ratings, deviations=[scale.deviation] * len(ratings), deltas=[()] * len(ratings))

    def after(self, a: int, b: int, score_a: float, score_b: float, scale: Scale) -> Standings:
        """Return the standings after a duel of models a and b, both moved from where they stood before it.

        Deviations are those (population) of the last ``window`` movements, once there are two. Equal scores move nobody.
        """
        update, difference = self.updates + 1, score_a - score_b
        z = (self.ratings[a] - self.ratings[b]) / math.hypot(self.deviations[a], self.deviations[b])
        gap = scale.gap_of(z if difference >= 0 else -z)
        ratings, deviations, deltas = list(self.ratings), list(self.deviations), list(self.deltas)
        for model, ahead in ((a, difference), (b, -difference)):
            delta = scale.k(update) / scale.scaling * ahead * math.tanh(self.deviations[model]) * gap
            ratings[model] = max(scale.floor, self.ratings[model] + delta)
            deltas[model] = (*self.deltas[model], delta)[-scale.window :]
            if len(deltas[model]) > 1:
                deviations[model] = max(scale.min_deviation, statistics.pstdev(deltas[model]))
        return Standings(ratings=ratings, deviations=deviations, deltas=deltas, updates=update)
