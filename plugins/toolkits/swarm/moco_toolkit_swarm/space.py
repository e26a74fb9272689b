"""What a swarm moves in: a vector space needs linear combinations and nothing else."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

__all__ = ["Numbers", "Vector", "VectorSpace", "one_hot", "softmax", "uniform_positions"]

V = TypeVar("V")
Vector = tuple[float, ...]


class VectorSpace(Protocol[V]):
    """Linear combinations of vectors, and their plain form for saving.

    ``V`` may be a tuple of numbers (:class:`Numbers`), a mapping of tensors, anything. Vectors are values: ``linear``
    returns a new one and changes none.
    """

    def linear(self, coefficients: Sequence[float], vectors: Sequence[V]) -> V:
        """Return sum_k coefficients[k] * vectors[k]; there is at least one."""
        ...

    def dump(self, vector: V) -> Any:
        """Return a vector as JSON data."""
        ...

    def load(self, data: Any) -> V:
        """Invert :meth:`dump` exactly."""
        ...


class Numbers:
    """R^D as tuples of floats; sums are exactly rounded, so that they do not depend on the order of the terms."""

    def linear(self, coefficients: Sequence[float], vectors: Sequence[Vector]) -> Vector:
        return tuple(
            math.fsum(c * x for c, x in zip(coefficients, column, strict=True)) for column in zip(*vectors, strict=True)
        )

    def dump(self, vector: Vector) -> Any:
        return list(vector)

    def load(self, data: Any) -> Vector:
        return tuple(float(x) for x in data)


def one_hot(size: int) -> list[Vector]:
    """Return the unit vectors of R^size: the coefficients of each of ``size`` experts over all of them."""
    return [tuple(float(i == j) for j in range(size)) for i in range(size)]


def uniform_positions(count: int, size: int, rng: random.Random, low: float = 0.0, high: float = 1.0) -> list[Vector]:
    """Return ``count`` points of R^size drawn from U(low, high) per coordinate."""
    return [tuple(rng.uniform(low, high) for _ in range(size)) for _ in range(count)]


def softmax(logits: Sequence[float]) -> list[float]:
    """Return exp(u_i) / sum_j exp(u_j): mixing weights from unbounded numbers."""
    top = max(logits)
    raised = [math.exp(u - top) for u in logits]
    total = math.fsum(raised)
    return [r / total for r in raised]
