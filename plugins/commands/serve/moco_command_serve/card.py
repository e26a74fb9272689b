"""The cards: what is known of a served system and of its members, with nothing of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco_command_serve.limits import Limits
from moco_command_serve.service import Service
from moco_core import ConfigError, MocoError, Model, RunResult, read_results
from moco_core.runs.stats import estimate

__all__ = ["cards", "check_members", "facts_of"]


def cards(service: Service, known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of the list of models by name: the system first, then its members."""
    parts, own = service.opened.parts, service.opened.system.model
    system: dict[str, Any] = {
        "method": service.method,
        "members": [_member(model) for model in parts.pool],
        "one_model": own is not None,
        **known,
    }
    out = {service.name: _entry(service.name, system)}
    for name, model in service.members.items():
        out[name] = _entry(name, _member(model))
    return out


def _entry(name: str, card: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "moco", "moco": dict(card)}


def _member(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "description": model.description,
        "can": sorted(model.capabilities),
        "parameters": model.parameters,
        "context_length": model.context_length,
    }


def facts_of(folder: Path) -> dict[str, Any]:
    """Return what a run folder and its neighbours tell: scores with intervals, and costs beside the best single model's."""
    try:
        run = RunResult.read(folder)
    except MocoError:
        return {}
    out: dict[str, Any] = {"dataset": run.dataset, "metric": run.metric, "seed": run.seed, "test": _score(run)}
    out["dev_score"] = run.dev_mean
    out["cost"] = _cost(run)
    try:
        others = read_results(folder.parent)
    except MocoError:
        return out
    singles = [r for r in others if r.role == "baseline" and (r.dataset, r.seed) == (run.dataset, run.seed) and r.units]
    if singles:
        best = max(singles, key=lambda r: (r.dev_mean is not None, r.dev_mean or 0.0, -r.position))
        out["best_single_on_dev"] = {"model": best.label, "test": _score(best), "cost": _cost(best)}
    return out


def _score(run: RunResult) -> dict[str, float] | None:
    found = estimate(run.units, run.seed)
    return None if found is None else {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}


def _cost(run: RunResult) -> dict[str, Any]:
    """Return tokens, calls and money of the test phase, per question."""
    rows = run.costs.get("respond", {}).values()
    count = max(run.questions, 1)
    priced = [row for row in rows if "money" in row]
    return {
        "prompt_tokens": sum(row["prompt"] for row in rows) / count,
        "completion_tokens": sum(row["completion"] for row in rows) / count,
        "calls": sum(row["calls"] + row["cached"] for row in rows) / count,
        "money": sum(row["money"] for row in priced) / count
        if priced and not any(row["unpriced"] for row in priced)
        else None,
    }


def check_members(service: Service, host: str, port: int, limits: Limits) -> None:
    """Refuse a system that calls this very server, or that is nested too deep. Raises ConfigError."""
    here = {f"{name}:{port}" for name in (host, "localhost", "127.0.0.1", "[::1]", "0.0.0.0")}
    todo = [(model, 1) for model in service.opened.parts.pool]
    while todo:
        model, depth = todo.pop()
        scheme, found, rest = model.device_group.partition("://")
        if found and scheme in ("http", "https") and rest.partition("/")[0] in here:
            raise ConfigError(
                f"model {model.name!r} lives at {model.device_group}, which is this server; it cannot call itself"
            )
        if depth > limits.depth:
            raise ConfigError(f"systems are nested more than {limits.depth} deep; --max-depth allows more")
        if model.recipe is None:  # its sources are the members of a nested system
            todo += [(source, depth + 1) for source in model.sources]
