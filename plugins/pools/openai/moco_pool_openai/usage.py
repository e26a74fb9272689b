"""What a reply used, and what that costs. What a server does not tell is unknown, never nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from moco_core.types import Usage

__all__ = ["Used", "used_by"]

_MOST = 10**9
"""Tokens of one call. What is more was never counted."""

_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")


@attrs.frozen(kw_only=True)
class Used:
    """Tokens of one request, None where the server does not say. ``completion`` is all that was written, thoughts included.

    ``cached`` is the part of ``prompt`` that the service had in its own cache, ``reasoning`` the part of ``completion`` that
    were thoughts; ``charged`` is what it says it takes.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int = 0
    reasoning: int | None = None
    charged: float | None = None

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt or 0, self.completion or 0)

    @property
    def known(self) -> bool:
        return bool(self.prompt) and self.completion is not None

    def cost(self, prices: tuple[float, float] | None, cached_price: float | None) -> float | None:
        """Return the money of the request in the currency of ``prices`` (per million tokens); None if it is unknown.

        Without prices it is what the service says it charges.
        """
        if prices is None:
            return self.charged
        if self.prompt is None or self.completion is None or not self.known:
            return None
        cached = min(self.cached, self.prompt) if cached_price is not None else 0
        read = (self.prompt - cached) * prices[0] + cached * (cached_price or 0.0)
        return (read + self.completion * prices[1]) / 1e6


def used_by(reply: Mapping[str, Any]) -> Used:
    """Read the tokens of a reply in the forms of all services known.

    Thoughts are billed as written, also where a service counts them in the total alone (Gemini, xAI) or beside the written
    tokens in the details.
    """
    given = reply.get("usage")
    if not isinstance(given, Mapping):
        beside = reply.get("x_groq")
        given = beside.get("usage") if isinstance(beside, Mapping) else None
    if not isinstance(given, Mapping):
        return Used()
    prompt = _count(given, "prompt_tokens", "input_tokens")
    if prompt is not None and "prompt_tokens" not in given:  # Anthropic counts what its cache holds beside it
        prompt += sum(_count(given, f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation"))
    completion = _count(given, "completion_tokens", "output_tokens")
    total = _count(given, "total_tokens")
    if total is not None:
        if prompt is None and completion is not None:
            prompt = max(0, total - completion)
        if prompt is not None:
            completion = max(completion or 0, total - prompt)
    details = _mapping(given, "completion_tokens_details", "output_tokens_details")
    thoughts = _count(details, "reasoning_tokens") or _count(given, "reasoning_tokens")
    if (
        completion is not None and thoughts is not None and thoughts > completion
    ):  # they cannot be among what was counted
        completion += thoughts
    read = _mapping(given, "prompt_tokens_details", "input_tokens_details")
    cached = _count(read, "cached_tokens") or _count(given, *_CACHED) or 0
    if not prompt and not completion:
        prompt = completion = None  # a service that counts nothing says 0
    return Used(prompt=prompt, completion=completion, cached=cached, reasoning=thoughts, charged=_charged(given))


def _mapping(given: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((given[n] for n in names if isinstance(given.get(n), Mapping)), {})


def _count(given: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = given.get(name)
        if isinstance(value, str) and value.isdecimal() and len(value) <= 10:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
            return value
    return None


def _charged(given: Mapping[str, Any]) -> float | None:
    """Return what a service says it takes: a number, or the total of several."""
    cost = given.get("cost", given.get("estimated_cost"))
    return _money(cost.get("total_cost") if isinstance(cost, Mapping) else cost)


def _money(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
