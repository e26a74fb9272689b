"""Trying again: how long to wait before it."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["retry_after", "seconds", "wait_before"]


def wait_before(attempt: int, asked: float | None, backoff: tuple[float, float], rng: random.Random) -> float:
    """Return the seconds to wait before attempt ``attempt`` (1 is the first repetition).

    Doubling with full jitter on the upper half, so that calls that failed together do not come back together; never less
    than the server asked for.
    """
    low, high = backoff
    span = min(high, low * 2.0 ** min(attempt - 1, 60))
    wait = span * (0.5 + 0.5 * rng.random())
    return wait if asked is None else asked + wait * 0.1


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the wait in seconds that a server asks for: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    try:
        if headers.get("retry-after-ms"):
            return seconds(float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if not value:
            return None
        try:
            return seconds(float(value))
        except ValueError:
            parsed: Any = email.utils.parsedate_tz(value)
            return None if parsed is None else seconds(email.utils.mktime_tz(parsed) - now())
    except (ValueError, TypeError, OverflowError):
        return None


def seconds(value: float) -> float | None:
    """Return a wait that makes sense, None for one that does not."""
    return None if math.isnan(value) else max(0.0, value)
