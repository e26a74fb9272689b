"""Which models complement each other: a search over subsets of the pool on what they answered on dev."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import attrs

from moco_method_slm_mux.confidence import Belief, believed

__all__ = ["Drawn", "best_subset", "mux_accuracy", "union_less_penalty"]

_MANY = 100_000
"""Subsets up to which all of them are tried."""

Value = tuple[float, float]
"""What a subset is worth, and what decides between subsets of equal worth."""


@attrs.frozen(kw_only=True)
class Drawn:
    """One model's samples on one dev question: their keys, their scores, and what they come to."""

    keys: tuple[str | None, ...]
    scores: tuple[float, ...]
    belief: Belief

    @property
    def right(self) -> int:
        """How many samples are right: score at least one half."""
        return sum(score >= 0.5 for score in self.scores)

    @property
    def surely_wrong(self) -> bool:
        """Whether all of at least two samples are one readable, wrong answer."""
        return len(self.keys) > 1 and None not in self.keys and len(set(self.keys)) == 1 and self.right == 0

    @property
    def score(self) -> float:
        """The score of the answer that the model would be believed for."""
        return self.scores[self.belief.sample] if self.belief.key is not None else 0.0


def union_less_penalty(rows: Sequence[Sequence[Drawn]], members: Sequence[int], *, robust: int, penalty: float) -> Value:
    """Return O(S) = U(S) - penalty * C(S), and U(S), over dev questions (``rows``, one entry per model of the pool).

    U is the share of questions that some member answers rightly at least ``robust`` times; C the share of those on which
    some member is surely wrong. arXiv 2510.05077, section on model selection.
    """
    known = [row for row in rows if any(row[i].right >= robust for i in members)]
    union = len(known) / len(rows)
    misled = sum(any(row[i].surely_wrong for i in members) for row in known) / len(known) if known else 0.0
    return union - penalty * misled, union


def mux_accuracy(rows: Sequence[Sequence[Drawn]], members: Sequence[int], *, tie: str, skills: Sequence[float]) -> Value:
    """Return the mean score that believing the most confident member has on dev; a random tie counts with its expectation."""
    total = 0.0
    for row in rows:
        chosen = believed(
            [row[i].belief for i in members],
            tie="dev" if tie == "random" else tie,
            skills=[skills[i] for i in members],
        )
        if chosen is not None:
            best = chosen[1] if tie == "random" else (chosen[0],)
            total += math.fsum(row[members[i]].score for i in best) / len(best)
    return total / len(rows), 0.0


def best_subset(models: int, sizes: tuple[int, int], value: Callable[[tuple[int, ...]], Value]) -> tuple[int, ...]:
    """Return the subset of models 0..n-1 with the best value; among equals the smaller one, then the first in pool order.

    All subsets of the sizes (at most ``models``) are tried; where there are more than 100,000, members are added one by one.
    """
    low, high = (min(size, models) for size in sizes)

    def rank(subset: tuple[int, ...]) -> tuple[float, ...]:
        worth, second = value(subset)
        return (round(worth, 12), round(second, 12), -len(subset), *(-i for i in subset))

    if sum(math.comb(models, size) for size in range(low, high + 1)) <= _MANY:
        every = (s for size in range(low, high + 1) for s in itertools.combinations(range(models), size))
        return max(every, key=rank)
    found: tuple[int, ...] = ()
    steps = []
    for size in range(1, high + 1):
        grown = (tuple(sorted((*found, i))) for i in range(models) if i not in found)
        found = max(grown, key=rank)
        if size >= low:
            steps.append(found)
    return max(steps, key=rank)
