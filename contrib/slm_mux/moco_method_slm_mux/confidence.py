"""How much models agree with themselves, and which of them is believed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import attrs

from moco_toolkit_voting import Utility, support

__all__ = ["Belief", "believed", "confident"]

_EPSILON = 1e-9


@attrs.frozen(kw_only=True)
class Belief:
    """What the samples of one model come to.

    ``key`` is its most frequent answer (None if none could be read), ``confidence`` the share of samples that support it,
    ``sample`` the number of the first that gives it. ``shares`` has the support of every answer, in the order of drawing.
    """

    key: str | None = None
    confidence: float = 0.0
    sample: int = 0
    shares: Mapping[str, float] = attrs.field(factory=dict)

    def weighed(self, weight: float) -> Belief:
        """Return the belief with its confidence and shares times a weight."""
        shares = {key: weight * share for key, share in self.shares.items()}
        return attrs.evolve(self, confidence=weight * self.confidence, shares=shares)


def confident(keys: Sequence[str | None], utility: Utility | None = None, closeness: Utility | None = None) -> Belief:
    """Return s = max_a (1/k) sum_j u(a, a_j) and its argmax, with k the samples drawn, readable (not None) or not.

    Samples are exchangeable, so that of answers with equal support the one drawn first is no worse than another; where
    ``closeness`` is given, the one closest to all samples comes before that.
    """
    shares = {key: mass / len(keys) for key, mass in support(keys, utility=utility).items()}
    if not shares:
        return Belief()
    top = max(shares.values())
    leaders = [key for key, share in shares.items() if top - share <= _EPSILON]
    if closeness is not None:
        near = {a: math.fsum(closeness(a, b) for b in keys if b is not None) for a in leaders}
        leaders = [a for a in leaders if max(near.values()) - near[a] <= _EPSILON]
    return Belief(key=leaders[0], confidence=shares[leaders[0]], sample=keys.index(leaders[0]), shares=shares)


def believed(
    beliefs: Sequence[Belief], *, tie: str, skills: Sequence[float] | None = None, rng: random.Random | None = None
) -> tuple[int, tuple[int, ...]] | None:
    """Return the index of the most confident model and of all that are as confident; None if nobody's answer could be read.

    A tie ends by dev accuracy (``dev``), by the support that an answer has among all models and then by dev accuracy
    (``support``), by pool order, or by a draw of ``rng`` (``random``). What is left of it ends by pool order.
    """
    top = max(b.confidence for b in beliefs)
    if top <= 0:
        return None
    tied = [i for i, b in enumerate(beliefs) if top - b.confidence <= _EPSILON]
    if tie == "order":
        return tied[0], tuple(tied)
    if tie == "random":
        assert rng is not None
        return rng.choice(tied), tuple(tied)
    skill = [0.0] * len(beliefs) if skills is None else skills

    def backing(index: int) -> float:
        if tie == "dev":
            return 0.0
        key = beliefs[index].key
        return round(math.fsum(b.shares.get(key, 0.0) for b in beliefs if key is not None), 9)

    return max(tied, key=lambda i: (backing(i), skill[i], -i)), tuple(tied)
