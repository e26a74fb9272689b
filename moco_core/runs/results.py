"""What a run came to: in memory at its end, or read from its folder at any time later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.errors import StoreError
from moco_core.runs.records import read_run, read_units
from moco_core.runtime.ledger import REFERENCE, Ledger, Tally
from moco_core.types import Unit, Usage

_OPTIONAL = ("dev_mean", "failed", "unparsed", "truncated", "binary", "refused", "extra_metrics", "rule")
"""What ``run.json`` holds under a field's own name, unless the run never ended or an earlier version wrote it."""


@attrs.frozen(kw_only=True)
class RunResult:
    """What a run came to, as data: everything a table needs, and nothing that only a process has.

    ``config`` is the effective configuration (pool, method, dataset, metric, seed, sampling, dev, test), ``models`` maps the
    pool's names to fingerprints, ``notes`` are the dataset's. ``role`` is ``method``, ``control`` or ``baseline``, ``label``
    the system's name in tables, ``position`` the run's place in its grid. ``units`` are what statistics count; the shares
    ``unparsed`` and ``truncated`` are of the answered questions. ``costs`` are the ``tokens`` of ``run.json``, by phase and
    model. ``extra_metrics`` are values beside the score by name: the mean over subsets, and what the metric adds (macro F1,
    say). ``refused`` says that the configuration was found wrong before any model was asked. ``rule`` is how its
    configuration judges methods (``level`` and ``gain``), ``chance`` the expected score of a guess, None where nobody said.
    ``versions`` are those of the distributions that took part.
    """

    folder: Path
    id: str
    role: str
    label: str
    position: int
    config: Mapping[str, Any]
    models: Mapping[str, str]
    notes: Mapping[str, Any]
    status: str
    units: tuple[Unit, ...]
    dev_mean: float | None = None
    questions: int
    failed: int = 0
    unparsed: float = 0.0
    truncated: float = 0.0
    costs: Mapping[str, Mapping[str, Mapping[str, Any]]]
    seconds: float
    warnings: tuple[str, ...] = ()
    binary: bool = True
    first_error: str = ""
    refused: bool = False
    extra_metrics: Mapping[str, float] = attrs.field(factory=dict)
    dataset_label: str = ""
    test_fingerprint: str = ""
    versions: Mapping[str, str] = attrs.field(factory=dict)
    rule: Mapping[str, float] = attrs.field(factory=dict)
    chance: float | None = None

    @classmethod
    def of(cls, folder: Path, head: Mapping[str, Any], units: Sequence[Unit]) -> RunResult:
        """Return the result that ``run.json`` tells of. Raises StoreError if a part of it is missing."""
        try:
            head = {"extra_metrics": head.get("figures", {}), **head}  # an earlier version called them so
            result = cls(
                folder=folder,
                **{name: head[name] for name in ("id", "role", "label", "position", "config", "status")},
                **{name: head[name] for name in _OPTIONAL if name in head},
                models={m["name"]: m["fingerprint"] for m in head["models"]},
                notes=head["dataset"]["notes"],
                units=tuple(units),
                questions=head["dataset"]["test"],
                costs=head.get("tokens", {}),
                seconds=head.get("timings", {}).get("total", 0.0),
                warnings=tuple(head.get("warnings", ())),
                first_error=head.get("error", ""),
                dataset_label=head["dataset"].get("label", ""),
                test_fingerprint=head["dataset"].get("test_fingerprint", ""),
                versions=head.get("environment", {}).get("versions", {}),
                chance=head["dataset"].get("chance"),
            )
            _ = [str(result.config[part]["name"]) for part in ("method", "dataset", "metric")], result.seed
            return result
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"{folder}/run.json: damaged: {type(error).__name__}: {error}; run it again") from None

    @classmethod
    def read(cls, folder: Path | str) -> RunResult:
        """Read a run folder. A run that never ended has no units.

        Raises StoreError if it is damaged, of a later format, or by an earlier version, which kept no units.
        """
        path = Path(folder)
        head = read_run(path)
        return cls.of(path, head, read_units(path) if "score" in head else ())

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def method(self) -> str:
        return str(self.config["method"]["name"])

    @property
    def dataset(self) -> str:
        """The dataset's name in tables."""
        return self.dataset_label or str(self.config["dataset"]["name"])

    @property
    def metric(self) -> str:
        return str(self.config["metric"]["name"])

    @property
    def calls(self) -> int:
        """Model calls, those that the cache answered included."""
        return self.cached_calls + int(self._sum("calls"))

    @property
    def cached_calls(self) -> int:
        return int(self._sum("cached"))

    @property
    def usage(self) -> Usage:
        """Tokens read and written, those of the calls that the cache answered included."""
        return Usage(int(self._sum("prompt")), int(self._sum("completion")))

    def _sum(self, what: str) -> float:
        # what only fixes a control's budget is none of its costs
        return sum(float(row[what]) for p, phase in self.costs.items() if p != REFERENCE for row in phase.values())

    @property
    def left_out(self) -> str:
        return left_out(self.notes)

    @property
    def subsets(self) -> dict[str, dict[str, float]]:
        return subsets_of(self.units)


def subsets_of(units: Sequence[Unit]) -> dict[str, dict[str, float]]:
    """Return mean score and number of units of every subset, by name."""
    groups: dict[str, list[float]] = {}
    for unit in units:
        if unit.subset:
            groups.setdefault(unit.subset, []).append(unit.score)
    return {name: {"mean": sum(v) / len(v), "n": len(v)} for name, v in sorted(groups.items())}


def left_out(notes: Mapping[str, Any]) -> str:
    """Return which rows a dataset left out, from its note ``dropped`` (split to reason to count); empty if none."""
    out, splits = [], notes.get("dropped")
    for split, reasons in splits.items() if isinstance(splits, Mapping) else ():
        if isinstance(reasons, Mapping) and (total := sum(reasons.values())):
            why = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items())
            out.append(f"{total:,} rows of {split} ({why})")
    return ", ".join(out)


def read_results(folder: Path | str) -> list[RunResult]:
    """Read all run folders below a folder, in the order of their grid. Raises what :meth:`RunResult.read` raises."""
    found = [RunResult.read(file.parent) for file in Path(folder).glob("**/run.json")]
    return sorted(found, key=lambda r: (r.position, r.id))


def costs_of(ledger: Ledger) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a run's costs as run.json has them: by phase and model, what the work costs and what the cache saved of it.

    ``unpriced``, ``untimed`` and ``unreasoned`` count calls whose money, seconds or reasoning tokens are unknown; the sums are
    "at least" then. ``trained`` has the tokens, operations and seconds of training, where a model was trained. ``roles`` has
    the same by role, of the calls for which a method tells one.
    """
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for phase, model, tally in ledger:
        out.setdefault(phase, {})[model] = _cost_row(tally)
    for (phase, model, role), tally in sorted(ledger.roles.items()):
        out[phase][model].setdefault("roles", {})[role] = _cost_row(tally)
    return out


def _cost_row(tally: Tally) -> dict[str, Any]:
    row: dict[str, Any] = {
        "prompt": tally.usage.prompt_tokens,
        "completion": tally.usage.completion_tokens,
        "calls": tally.calls - tally.cached,
        "cached": tally.cached,
        "seconds": round(tally.seconds, 6),
        "untimed": tally.untimed,
        "saved": {
            "prompt": tally.saved_usage.prompt_tokens,
            "completion": tally.saved_usage.completion_tokens,
            "seconds": round(tally.saved_seconds, 6),
        },
        "parameters": tally.parameters,
    }
    if tally.reasoning or tally.unreasoned:
        row |= {"reasoning": tally.reasoning, "unreasoned": tally.unreasoned}
    if tally.cached_prompt:
        row["cached_prompt"] = tally.cached_prompt
    if tally.trained:
        row["trained"] = dict(tally.trained)
    if tally.priced:
        row |= {"money": round(tally.money, 9), "unpriced": tally.unpriced}
        row["saved"]["money"] = round(tally.saved_money, 9)
    return row
