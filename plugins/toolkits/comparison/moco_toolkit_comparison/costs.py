"""What systems cost: calls, tokens, seconds, operations and money, by phase, role and model.

A cost is that of the work, whether a call was made in this run or came from the cache; what the cache saved stands beside it.
What is unknown stays unknown and makes every sum that holds it "at least".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from moco_core import ConfigError, RunResult

__all__ = ["QUANTITIES", "Amount", "Line", "answering", "costs", "front", "read_prices", "total"]

QUANTITIES = ("calls", "prompt", "completion", "reasoning", "cached_prompt", "seconds", "flops", "money")
NOT_OURS = ("metric", "reference")
"""Phases that are no work of the system: judging its replies, and what only fixes a control's budget."""


@attrs.frozen
class Amount:
    """A sum of what is known of a quantity; with ``at_least`` a part of it is unknown. ``value`` is None if all of it is."""

    value: float | None
    at_least: bool = False

    def __add__(self, other: Amount) -> Amount:
        known = [v for v in (self.value, other.value) if v is not None]
        partial = self.at_least or other.at_least or len(known) < 2
        return Amount(sum(known) if known else None, partial and bool(known))

    def text(self, form: str = ",.0f") -> str:
        """Return the amount for people: ``?`` if unknown, ``>=`` in front of what is known in part."""
        return "?" if self.value is None else f"{'>=' if self.at_least else ''}{self.value:{form}}"


@attrs.frozen(kw_only=True)
class Line:
    """The work of one model in one phase; ``role`` says what for, where a method tells (else it is empty).

    ``saved`` are the tokens, seconds and money that the cache spared.
    """

    phase: str
    role: str
    model: str
    amounts: Mapping[str, Amount]
    saved: Mapping[str, float]


def costs(run: RunResult, prices: Mapping[str, tuple[float, float]] | None = None) -> list[Line]:
    """Return a run's costs by phase, role and model.

    ``prices`` (money per million prompt and completion tokens, by model) replace what the models cost when they were asked.
    """
    out = []
    for phase, models in run.costs.items():
        for model, row in models.items():
            roles: Mapping[str, Mapping[str, Any]] = row.get("roles", {})
            for role, part in {**_rest(row, roles), **roles}.items():
                amounts = _amounts(part, (prices or {}).get(model))
                out.append(Line(phase=phase, role=role, model=model, amounts=amounts, saved=part.get("saved", {})))
    return out


def _rest(row: Mapping[str, Any], roles: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return what of a model's row no role accounts for."""
    if not roles:
        return {"": row}
    rest: dict[str, Any] = {**row, "saved": dict(row.get("saved", {}))}
    for part in roles.values():
        for key, value in part.items():
            if key in rest and key not in ("parameters", "saved", "roles"):
                rest[key] -= value
        for key, value in part.get("saved", {}).items():
            rest["saved"][key] = rest["saved"].get(key, 0) - value
    return {"": rest} if rest["calls"] + rest["cached"] else {}


def _amounts(row: Mapping[str, Any], price: tuple[float, float] | None) -> dict[str, Amount]:
    tokens, size = row["prompt"] + row["completion"], row.get("parameters")
    trained: Mapping[str, float] = row.get("trained", {})
    # a forward pass takes 2 operations per parameter and token; what training took, its job says
    flops = None if size is None and tokens else 2.0 * (size or 0) * tokens + trained.get("flops", 0.0)
    calls = row["calls"] + row["cached"]
    out = {name: Amount(float(row[name])) for name in ("prompt", "completion")}
    out["calls"] = Amount(float(calls))
    out["reasoning"] = _partly(row.get("reasoning"), row.get("unreasoned", 0), calls)
    out["cached_prompt"] = Amount(row.get("cached_prompt"))
    out["seconds"] = _partly(row["seconds"], row["untimed"], calls) if "untimed" in row else Amount(row.get("seconds"))
    if trained:
        out["seconds"] += Amount(trained.get("seconds", 0.0))
    out["flops"] = Amount(flops)
    out["money"] = (
        _partly(row.get("money"), row.get("unpriced", 0), calls)
        if price is None
        else Amount((row["prompt"] * price[0] + row["completion"] * price[1]) / 1e6)
    )
    return out


def _partly(value: float | None, unknown: int, calls: int) -> Amount:
    return Amount(None) if value is None or (unknown and unknown >= calls) else Amount(value, bool(unknown))


def total(lines: Iterable[Line]) -> dict[str, Amount]:
    """Return the sum of every quantity; zero of all without lines."""
    out: dict[str, Amount] = {}
    for line in lines:
        for name, amount in line.amounts.items():
            out[name] = out[name] + amount if name in out else amount
    return out or {name: Amount(0.0) for name in QUANTITIES}


def answering(runs: Sequence[RunResult], prices: Mapping[str, tuple[float, float]] | None = None) -> dict[str, Amount]:
    """Return what answering cost per question, as mean over runs: without fitting, judging and a control's reference.

    ``tokens`` are those read and written.
    """
    lines = [line for run in runs for line in costs(run, prices) if line.phase == "respond"]
    asked = sum(run.questions for run in runs) or 1
    sums = total(lines)
    sums["tokens"] = sums["prompt"] + sums["completion"]
    return {n: Amount(None if a.value is None else a.value / asked, a.at_least) for n, a in sums.items()}


def front(points: Sequence[tuple[float | None, float | None]]) -> list[bool]:
    """Return which (cost, score) points no other dominates: none is as cheap and as good, and better in one of the two."""

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] <= b[0] and a[1] >= b[1]

    known = [(c, s) for c, s in points if c is not None and s is not None]
    return [c is not None and s is not None and not any(beats(other, (c, s)) for other in known) for c, s in points]


def read_prices(data: Mapping[str, Any], where: str = "prices") -> dict[str, tuple[float, float]]:
    """Return a price table: money per million prompt and completion tokens, by model. Raises ConfigError."""
    out, problems = {}, []
    for model, given in data.items():
        pair = list(_pair(given))
        if len(pair) == 2 and all(type(p) in (int, float) and math.isfinite(p) and p >= 0 for p in pair):
            out[str(model)] = (float(pair[0]), float(pair[1]))
        else:
            problems.append(f"{where}: {model}: expected two numbers >= 0, money per million prompt and completion tokens")
    if problems:
        raise ConfigError(problems)
    return out


def _pair(given: Any) -> Iterator[Any]:
    if isinstance(given, Mapping):
        given = [given.get("prompt"), given.get("completion")]
    yield from given if isinstance(given, (list, tuple)) else ()
