"""Seeded choices that depend on an item alone, never on the order in which items are read.

Every decision is a hash of the seed and the item's own key. Reading a source in another order, or from a larger copy,
changes nobody's rank; no generator is shared between items.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from moco_core import Example
from moco_toolkit_data.duplicates import content_key

__all__ = ["Sample", "cut", "permutation", "rank", "sampled", "shuffled"]

T = TypeVar("T")


def rank(seed: int, *parts: Hashable) -> int:
    """Return a uniform 64-bit number that depends on the seed and the parts only."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def permutation(count: int, seed: int, key: str) -> tuple[int, ...]:
    """Return the seeded order of ``count`` choices of the item ``key``: place ``i`` shows choice ``permutation[i]``."""
    return tuple(sorted(range(count), key=lambda i: (rank(seed, "choice", key, i), i)))


def shuffled(choices: Sequence[T], answer: int, seed: int, key: str) -> tuple[tuple[T, ...], int, tuple[int, ...]]:
    """Return choices in a seeded order, where the right one went, and the permutation."""
    order = permutation(len(choices), seed, key)
    return tuple(choices[i] for i in order), order.index(answer), order


class Sample(Generic[T]):
    """The lowest-ranked whole units of a stream: at least ``size`` members are kept, then whole units are dropped.

    A unit is one item, or the items that must stay together. Memory is bounded by the members kept (``size`` plus one
    unit), whatever the length of the stream, and the result does not depend on the order of the stream.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._units: dict[tuple[int, str], list[T]] = {}
        self._heap: list[tuple[int, str]] = []  # negative rank: the worst unit comes first
        self._worst: tuple[int, str] | None = None  # the best unit dropped so far: nothing from it on may come back
        self._count = 0

    def add(self, rank: int, unit: str, item: T) -> None:
        key = (rank, unit)
        if self._worst is not None and key >= self._worst:
            return
        if key not in self._units:
            self._units[key] = []
            heapq.heappush(self._heap, (-rank, unit))
        self._units[key].append(item)
        self._count += 1
        while True:
            worst = (-self._heap[0][0], self._heap[0][1])
            members = self._units[worst]
            if self._count - len(members) < self._size:
                return
            heapq.heappop(self._heap)
            del self._units[worst]
            self._count -= len(members)
            self._worst = worst if self._worst is None else min(self._worst, worst)

    def units(self) -> list[list[T]]:
        """Return the kept units, best rank first."""
        return [self._units[key] for key in sorted(self._units)]


def sampled(pairs: Iterable[tuple[T, Example]], size: int, seed: int) -> Iterator[tuple[T, Example]]:
    """Keep ``size`` examples by rank and yield them by rank, so that the first ones are a fair sample themselves."""
    sample: Sample[tuple[T, Example]] = Sample(size)
    for place, (row, example) in enumerate(pairs):
        if example.group:  # what scores together is drawn together
            sample.add(rank(seed, "sample group", example.group), example.group, (row, example))
            continue
        key = example.id or content_key(example)
        sample.add(rank(seed, "sample", key), f"{key}/{place:012d}", (row, example))
    for unit in sample.units():
        yield from unit


def cut(units: Iterable[list[T]], first: int, second: int) -> tuple[list[T], list[T]]:
    """Cut ranked units into two parts of about ``first`` and ``second`` members, units whole.

    If there are fewer members than asked for, the two parts keep the asked proportion and both get at least one unit.
    """
    ranked = list(units)
    total = sum(map(len, ranked))
    if total < first + second:
        first = max(1, round(total * first / (first + second))) if first else 0
        if len(ranked) > 1 and second:
            first = min(first, total - len(ranked[-1]))
        second = total - first
    head: list[T] = []
    tail: list[T] = []
    for unit in ranked:
        if len(head) < first:
            head.extend(unit)
        elif len(tail) < second:
            tail.extend(unit)
    return head, tail
