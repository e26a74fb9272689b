"""Sets of solutions: who writes how many, which sets are hard, and the mixture that is trained on. Pure functions."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import attrs

from moco_toolkit_voting import support

__all__ = ["CandidateSet", "is_hard", "mixture", "plan", "shares"]


@attrs.frozen(kw_only=True)
class CandidateSet:
    """One set of solutions to the dev question at index ``question``, in the order of showing.

    ``keys`` are their answers (None: unparsed), ``right`` says which of them have the full score.
    """

    question: int
    number: int
    texts: tuple[str, ...]
    keys: tuple[str | None, ...]
    right: tuple[bool, ...]

    @property
    def hard(self) -> bool:
        return is_hard(self.keys, self.right)

    @property
    def solvable(self) -> bool:
        """Whether any of the solutions is right."""
        return any(self.right)


def shares(models: int, m: int, number: int) -> list[int]:
    """Return how many of m solutions each model writes for a set: m/N rounded up or down, models taking turns at one more."""
    more = m % models
    return [m // models + ((i - number * more) % models < more) for i in range(models)]


def plan(models: int, m: int, sets: int) -> list[list[tuple[int, int]]]:
    """Return, for each set, its solutions as (model, number of that model's sample): no sample is in two sets."""
    drawn = [0] * models
    out: list[list[tuple[int, int]]] = []
    for number in range(sets):
        out.append([])
        for model, count in enumerate(shares(models, m, number)):
            out[-1] += [(model, drawn[model] + k) for k in range(count)]
            drawn[model] += count
    return out


def is_hard(keys: Sequence[str | None], right: Sequence[bool]) -> bool:
    """Return whether a set's majority is wrong or absent.

    Unparsed solutions do not vote. Of tied answers all must be right.
    """
    votes = support(keys)
    leaders = {key for key, count in votes.items() if count == max(votes.values())}
    return not leaders or not all(ok for key, ok in zip(keys, right, strict=True) if key in leaders)


def mixture(
    sets: Sequence[CandidateSet], easy_ratio: float, max_easy: int, skip_unsolvable: bool, rng: random.Random
) -> list[CandidateSet]:
    """Return the sets to train on: all hard ones, and easy ones of the questions that are in it least often.

    ``easy_ratio`` easy sets come with each hard one, rounded; where no set is hard, ``max_easy`` of them are all there is.
    """
    hard = [s for s in sets if s.hard]
    wanted = math.floor(easy_ratio * len(hard) + 0.5) if hard else max_easy
    chosen = [s for s in hard if s.solvable or not skip_unsolvable]
    waiting: dict[int, list[CandidateSet]] = defaultdict(list)
    for candidate in rng.sample(sets, len(sets)):
        if not candidate.hard:
            waiting[candidate.question].append(candidate)
    used = Counter(s.question for s in chosen)
    for _ in range(min(wanted, sum(map(len, waiting.values())))):
        question = min((q for q, left in waiting.items() if left), key=used.__getitem__)  # ties: the order of the draw
        chosen.append(waiting[question].pop())
        used[question] += 1
    return chosen
