"""Converters for attrs fields that hold tuples: any iterable in, a tuple out.

``converter=tuple`` would do the same, but type checkers cannot tell from it what a constructor takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["anything", "floats", "ints", "strings"]


def strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def ints(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


def floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


def anything(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(values)
