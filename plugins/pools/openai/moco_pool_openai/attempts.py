"""Trying again: how long to wait before it."""

from __future__ import annotations

import email.utils
import math
import random
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["asked_in_words", "renewed", "retry_after", "seconds", "wait_before"]

_AMOUNT = r"(\d+(?:\.\d+)?|an?\b)\s*(ms|msecs?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
_AMOUNTS = re.compile(_AMOUNT, re.IGNORECASE)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS = re.compile(
    rf"\b(?:try again|retry\w*|available|(?:available )?again|resets?|wait)\b[\s:]*(?:in|after|for)?[\s:]*(?:about\s+)?"
    rf"((?:{_AMOUNT}(?:,|\s|and\b)*)+|\d+:\d\d:\d\d)",
    re.IGNORECASE,
)
_EPOCH = 10**9
"""A wait of more seconds is none: it is a date, counted from 1970."""


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
    """Return the wait in seconds that a server asks for, by ``retry-after-ms`` or ``retry-after``."""
    for name, unit in (
        ("retry-after-ms", 1000),
        ("x-ms-retry-after-ms", 1000),
        ("retry-after", 1),
        ("x-retry-after", 1),
    ):
        if (wait := seconds(headers.get(name), now)) is not None:
            return wait / unit
    return None


def renewed(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds until every limit that is used up begins anew, as far as the server tells."""
    waits = [
        seconds(headers.get(name.replace("remaining", "reset")), now)
        for name, left in headers.items()
        if "ratelimit" in name and "remaining" in name and left == "0"
    ]
    return max((w for w in waits if w is not None), default=None)


def seconds(value: Any, now: Callable[[], float] = time.time) -> float | None:
    """Return a wait: a number of seconds, a duration (``1m30s``, ``0:01:30``), a date in any usual form, or seconds or
    milliseconds since 1970. None for what is none of them.
    """
    text = str(value or "").strip()
    try:
        number = float(text)
    except ValueError:
        number = _other(text, now)
    if math.isfinite(number) and number >= _EPOCH:
        number = number / (1000 if number >= 1000 * _EPOCH else 1) - now()
    return None if math.isnan(number) else max(0.0, number)


def asked_in_words(text: str) -> float | None:
    """Return the wait that a message asks for: ``try again in 6m1.5s``, ``retry after 2 hours and 3 minutes``."""
    found = _WORDS.search(text)
    return seconds(found[1]) or None if found else None


def _other(text: str, now: Callable[[], float]) -> float:
    """Return the seconds of a duration or until a date; NaN for any other text."""
    if re.fullmatch(rf"(?:{_AMOUNT}(?:,|\s|and\b)*)+", text, re.IGNORECASE):
        return math.fsum(_amount(number, unit.lower()) for number, unit in _AMOUNTS.findall(text))
    if clock := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text):
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
    try:
        date = datetime.fromisoformat(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now()
    except (ValueError, OverflowError):
        parsed = email.utils.parsedate_tz(text)
    try:
        return math.nan if parsed is None else email.utils.mktime_tz((*parsed[:9], parsed[9] or 0)) - now()
    except (ValueError, OverflowError):
        return math.nan


def _amount(number: str, unit: str) -> float:
    size = 0.001 if unit.startswith(("ms", "milli")) else _UNITS[unit[0]]
    return (1.0 if number[0] in "aA" else float(number)) * size
