"""What a run's calls cost: tokens, money and model time per phase and model, whether paid today or answered from the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import attrs

from moco_core.models import Call, Model
from moco_core.types import CallRecord, Generation, Usage

REFERENCE = "reference"
"""The role, and then the phase, of work that is no part of what a system costs."""


class Answered(NamedTuple):
    """A call's result; whether it came from the cache; its seconds of model time when it was made, None if unknown."""

    value: Any
    cached: bool
    seconds: float | None = None


@attrs.define
class Tally:
    """The work of one model in one phase. The fields ``saved_*`` are the part that the cache spared.

    ``unpriced``, ``untimed`` and ``unreasoned`` count the calls whose money, seconds or reasoning tokens are unknown: the sums
    are at least what stands here. ``cached_prompt`` are tokens that a server had read before.
    ``trained`` is what training the model took, by name: ``tokens``, ``flops``, ``seconds``, and the same ``saved_``.
    """

    calls: int = 0
    cached: int = 0
    usage: Usage = Usage()
    saved_usage: Usage = Usage()
    money: float = 0.0
    saved_money: float = 0.0
    priced: int = 0
    unpriced: int = 0
    seconds: float = 0.0
    saved_seconds: float = 0.0
    untimed: int = 0
    trained: Mapping[str, float] = attrs.field(factory=dict)
    reasoning: int = 0
    unreasoned: int = 0
    cached_prompt: int = 0
    parameters: int | None = None

    def count(self, model: Model, usage: Usage, calls: int, cached: bool) -> None:
        """Add work of ``calls`` calls that have no price and no time of their own."""
        self.calls += calls
        self.usage += usage
        self.parameters = model.parameters
        if cached:
            self.cached += calls
            self.saved_usage += usage

    def add(self, model: Model, usage: Usage, answered: Answered) -> None:
        """Add one answered call."""
        self.count(model, usage, 1, answered.cached)
        result = answered.value
        price = money_of(model, usage, result)
        if price is not None:
            self.priced += 1
            if math.isnan(price):
                self.unpriced += 1
            else:
                self.money += price
                self.saved_money += price if answered.cached else 0.0
        if answered.seconds is None:
            self.untimed += 1
        else:
            self.seconds += answered.seconds
            self.saved_seconds += answered.seconds if answered.cached else 0.0
        if isinstance(result, Generation):
            thought = result.meta.get("reasoning_tokens", None if result.reasoning else 0)
            self.reasoning += thought or 0
            self.unreasoned += thought is None
            self.cached_prompt += result.meta.get("cached_tokens") or 0


class Ledger:
    """The tallies of a run by (phase, model name), and those of ``roles`` by (phase, model name, role).

    Nobody's work looks free because somebody else paid for it first.
    """

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}
        self.roles: dict[tuple[str, str, str], Tally] = {}

    def __iter__(self) -> Iterator[tuple[str, str, Tally]]:
        return ((phase, model, tally) for (phase, model), tally in sorted(self._tallies.items()))

    def of(self, phase: str, model: str) -> Tally:
        return self._tallies.setdefault((phase, model), Tally())

    def each(self, phase: str, model: str, role: str = "") -> Iterator[Tally]:
        """Yield the tallies that a call is added to: the model's, and its role's if it has one."""
        yield self.of(phase, model)
        if role:
            yield self.roles.setdefault((phase, model, role), Tally())

    def train(self, phase: str, model: str, figures: Mapping[str, Any], *, cached: bool) -> None:
        """Add what a training took, from the job's figures."""
        tally = self.of(phase, model)
        took = {name: float(figures.get(f"train_{name}") or 0) for name in ("tokens", "flops", "seconds")}
        took |= {f"saved_{name}": value if cached else 0.0 for name, value in took.items()}
        tally.trained = {name: value + tally.trained.get(name, 0.0) for name, value in took.items()}

    @property
    def calls(self) -> int:
        return sum(t.calls for t in self._tallies.values())

    @property
    def usage(self) -> Usage:
        return sum((t.usage for t in self._tallies.values()), Usage())


def usage_of(kind: str, result: Any) -> Usage:
    """Return the tokens that a result's call read and wrote."""
    if isinstance(result, Generation):
        return result.usage
    if kind == "score":
        return Usage(sum(s.prompt_tokens + len(s.token_ids) for s in result))
    return Usage()


def money_of(model: Model, usage: Usage, result: Any) -> float | None:
    """Return what a call cost at list price: None if the model has no price, NaN if the price of this call is unknown.

    An engine that knows better says so in ``meta["cost"]`` of a generation (None: unknown).
    """
    if isinstance(result, Generation) and "cost" in result.meta:
        cost = result.meta["cost"]
        return math.nan if cost is None else float(cost)
    if model.prices is None:
        return None
    if not usage.prompt_tokens:
        return math.nan
    return (usage.prompt_tokens * model.prices[0] + usage.completion_tokens * model.prices[1]) / 1e6


def call_record(phase: str, call: Call, usage: Usage, answered: Answered) -> CallRecord:
    """Return a finished call as run records show it."""
    result = answered.value
    said: Any = None
    if isinstance(result, Generation):
        said = {"text": result.text, "finish": result.finish_reason}
        if result.reasoning:
            said["reasoning"] = result.reasoning
        if "cached_tokens" in result.meta:
            said["cached_tokens"] = result.meta["cached_tokens"]
    elif call.kind == "score":
        said = [round(c.logprob, 6) for c in result]
    elif call.kind == "reward":
        said = list(result)
    return CallRecord(
        model=call.model.name,
        kind=call.kind,
        phase=phase,
        key=call.key.hex() if call.key else "",
        cached=answered.cached,
        usage=usage,
        seconds=answered.seconds,
        request=call.input,
        response=said,
    )
