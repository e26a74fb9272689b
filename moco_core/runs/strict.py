"""JSON as its standard has it: no Infinity, no NaN, nothing that only Python knows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any


def problem(value: Any, where: str) -> str | None:
    """Return what JSON cannot hold in a value and where it stands, as one clause; None if it can hold all of it."""
    if value is None or isinstance(value, (str, bool, int)):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where} is {value}, which JSON cannot hold"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{where} has the key {key!r}; the keys of JSON are texts"
            if found := problem(item, f"{where}.{key}"):
                return found
        return None
    if isinstance(value, (list, tuple)):
        return next((p for i, v in enumerate(value) if (p := problem(v, f"{where}[{i}]"))), None)
    kind = type(value)
    return f"{where} is of the type {kind.__module__}.{kind.__qualname__}, which JSON cannot hold"


def tamed(value: Any) -> Any:
    """Return a value as JSON can hold it: other numbers as numbers, infinities, NaN and anything else as texts."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, Mapping):
        return {str(k): tamed(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [tamed(v) for v in value]
    return str(value)


def dumps(value: Any, indent: int | None = None) -> str:
    """Return a value as strict JSON, tamed where it must be."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(tamed(value), indent=indent, ensure_ascii=False, allow_nan=False)
