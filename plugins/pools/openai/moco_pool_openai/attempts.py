"""Trying again: which failures pass, and how long to wait for it."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from moco_core.errors import ModelCallError

__all__ = ["Damaged", "retry_after", "wait_before", "worth_retrying"]

_PASSING = frozenset({408, 409, 425, 429})
_FINAL_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class Damaged(ModelCallError):
    """A reply arrived, but is not what the API promises."""


def worth_retrying(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    import openai

    if isinstance(error, openai.APIStatusError):
        code = getattr(error, "code", None)
        if code in _FINAL_CODES:
            return False  # answered 429 too, but money does not come back by waiting
        return error.status_code in _PASSING or error.status_code >= 500
    # connection errors and timeouts; ValueError: a body that is no JSON
    return isinstance(error, (openai.APIConnectionError, openai.APIResponseValidationError, Damaged, ValueError))


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the wait in seconds that a server asks for: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    try:
        if headers.get("retry-after-ms"):
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if not value:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            parsed: Any = email.utils.parsedate_tz(value)
            return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - now())
    except (ValueError, TypeError, OverflowError):
        return None


def wait_before(attempt: int, asked: float | None, backoff: tuple[float, float], rng: random.Random) -> float:
    """Return the seconds to wait before attempt ``attempt`` (1 is the first repetition).

    Doubling with full jitter on the upper half, so that calls that failed together do not come back together; never less
    than the server asked for.
    """
    low, high = backoff
    span = min(high, low * 2.0 ** (attempt - 1))
    wait = span * (0.5 + 0.5 * rng.random())
    return wait if asked is None else asked + wait * 0.1
