"""Converters for attrs fields that hold tuples and mappings: any iterable in, a tuple out; any mapping in, a copy out.

``converter=tuple`` would do the same, but type checkers cannot tell from it what a constructor takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def ints(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


def floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


def anything(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(values)


def mapping(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if value is None else dict(value)
