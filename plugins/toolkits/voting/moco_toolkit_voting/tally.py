"""Tallies, tie rules and voter weights: pure functions over the answers' keys, one entry per voter.

A key of None is an abstention. Voters are numbered in pool order, samples of one model next to each other, so that the
lowest index is the first model's first sample.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import attrs

__all__ = ["Tie", "Utility", "Vote", "log_odds", "smoothed_accuracy", "support", "vote"]

Tie = Literal["best_model", "order", "random"]
Utility = Callable[[str, str], float]
"""``utility(a, b)``: how much a vote for the answer with key b supports the answer with key a."""

_EPSILON = 1e-9


@attrs.frozen(kw_only=True)
class Vote:
    """The outcome of a vote.

    ``key`` is the winner and ``voter`` the index of the supporter whose reply stands for it. ``support`` is S of every
    candidate, in order of their first supporters. ``margin`` and ``share`` are the winner's lead over the runner-up and
    its support, both divided by the weight of all who voted (0 if that is 0). ``tied`` names the candidates among which
    the tie rule chose, if there was a tie.
    """

    key: str
    voter: int
    support: Mapping[str, float]
    margin: float
    share: float
    tied: tuple[str, ...] = ()


def support(
    keys: Sequence[str | None], weights: Sequence[float] | None = None, utility: Utility | None = None
) -> dict[str, float]:
    """Return S(a) = sum_j w_j u(a, a_j) over all who voted, for every distinct key, in order of first appearance.

    Without ``utility`` it is 1 for equal keys and 0 otherwise, so that S counts votes (O(M) instead of O(M^2)).
    """
    mass: dict[str, float] = {}
    for index, key in enumerate(keys):
        if key is not None:
            mass[key] = mass.get(key, 0.0) + (1.0 if weights is None else weights[index])
    if utility is None:
        return mass
    return {a: math.fsum(weight * utility(a, b) for b, weight in mass.items()) for a in mass}


def vote(
    keys: Sequence[str | None],
    *,
    weights: Sequence[float] | None = None,
    utility: Utility | None = None,
    skills: Sequence[float] | None = None,
    tie: Tie = "order",
    rng: random.Random | None = None,
    lengths: Sequence[int] | None = None,
) -> Vote | None:
    """Return the answer with the most support, or None if nobody voted.

    ``skills`` are dev scores, one per voter. Ties (up to 1e-9) go to the answer whose best supporter has the highest
    skill (``best_model``), to the answer of the lowest voter (``order``), or to a uniform draw of ``rng`` (``random``);
    what is still tied goes to the lowest voter. The winner is represented by its most skilled supporter, or by the one
    with the shortest reply if ``lengths`` are given; again the lowest voter decides.

    Raises ValueError for ``tie="random"`` without ``rng``.
    """
    tally = support(keys, weights, utility)
    if not tally:
        return None
    top = max(tally.values())
    leaders = [key for key, score in tally.items() if top - score <= _EPSILON]
    skill = [0.0] * len(keys) if skills is None else skills
    if len(leaders) == 1 or tie == "order":
        winner = leaders[0]
    elif tie == "random":
        if rng is None:
            raise ValueError("tie='random' needs a generator")
        winner = rng.choice(leaders)
    else:
        best = {a: max(s for key, s in zip(keys, skill, strict=True) if key == a) for a in leaders}
        winner = max(leaders, key=best.__getitem__)  # max keeps the first, the answer of the lowest voter
    supporters = [index for index, key in enumerate(keys) if key == winner]
    if lengths is not None:
        voter = min(supporters, key=lengths.__getitem__)
    else:
        voter = max(supporters, key=skill.__getitem__)
    total = math.fsum(1.0 if weights is None else weights[i] for i, key in enumerate(keys) if key is not None)
    runner_up = max((score for key, score in tally.items() if key != winner), default=0.0)
    return Vote(
        key=winner,
        voter=voter,
        support=tally,
        margin=(tally[winner] - runner_up) / total if total else 0.0,
        share=tally[winner] / total if total else 0.0,
        tied=tuple(leaders) if len(leaders) > 1 else (),
    )


def smoothed_accuracy(correct: float, n: int, choices: int) -> float:
    """Return (correct + 1) / (n + choices): Laplace's estimate of an accuracy over ``choices`` answers."""
    return (correct + 1) / (n + choices)


def log_odds(accuracy: float, choices: int) -> float:
    """Return log((m - 1) p / (1 - p)), at least 0: the optimal weight of an independent voter.

    Nitzan and Paroush, "Optimal decision rules in uncertain dichotomous choice situations", 1982, for m = 2; with m > 2
    the wrong answers are taken to be equally likely. Infinite for an accuracy of 1.
    """
    if accuracy <= 0:
        return 0.0
    if accuracy >= 1:
        return math.inf
    return max(0.0, math.log((choices - 1) * accuracy / (1 - accuracy)))
