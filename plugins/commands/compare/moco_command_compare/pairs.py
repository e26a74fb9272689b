"""Two runs, question by question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from moco_core import ConfigError, RunResult, StoreError, Versus, compare, read_records
from moco_toolkit_comparison.power import detectable

__all__ = ["CELLS", "Pair", "listed", "pair_of", "run_of"]

CELLS = ("repaired", "broken", "both-right", "both-wrong", "not-compared")
_ASKED, _ANSWER = 60, 20


@attrs.frozen(kw_only=True)
class Pair:
    """``base`` and ``other``; ``cells`` maps each of ``CELLS`` to ids of units, in the order of ``base``."""

    base: RunResult
    other: RunResult
    cells: Mapping[str, tuple[str, ...]]
    versus: Versus
    detectable: float | None

    def lines(self) -> Iterator[str]:
        """Yield both systems, the four cells, the difference with its interval, p and n, and what could have been seen."""
        for run in (self.base, self.other):
            ended = "" if run.status == "finished" else f", {run.status}"
            yield f"{run.label} on {run.dataset}, seed {run.seed}: {_mean(run):.3f} ({run.folder}{ended})"
        yield "  ".join(f"{cell.replace('-', ' ')} {len(ids)}" for cell, ids in self.cells.items())
        v = self.versus
        p = "< 0.001" if v.p_value < 0.001 else f"= {v.p_value:.3f}"
        test = "exact McNemar" if v.test == "mcnemar" else "sign flips"
        yield f"difference {v.difference:+.3f} [{v.low:+.3f}, {v.high:+.3f}], p {p} ({test}), n {v.n}"
        yield f"with this many questions a difference of {self.detectable:.3f} is found 8 times in 10"

    def data(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        runs = {
            name: {"folder": str(r.folder), "label": r.label, "seed": r.seed, "status": r.status, "mean": _mean(r)}
            for name, r in (("base", self.base), ("other", self.other))
        }
        return {
            **runs,
            "dataset": self.base.dataset,
            "metric": self.base.metric,
            "counts": {cell: len(ids) for cell, ids in self.cells.items()},
            "versus": attrs.asdict(self.versus),
            "detectable": self.detectable,
            "questions": {cell: list(ids) for cell, ids in self.cells.items()},
        }


def run_of(folder: Path) -> RunResult:
    """Read a run that has scores. Raises ConfigError if the folder is no run, StoreError if it has none or is damaged."""
    if not (folder / "run.json").is_file():
        raise ConfigError(f"{folder}: not a run folder (no run.json); moco runs lists those below a folder")
    run = RunResult.read(folder)
    if not run.units:
        raise StoreError(f"{folder}: no scores to compare, the run is {run.status}; moco read shows what there is")
    return run


def pair_of(base: RunResult, other: RunResult) -> Pair:
    """Sort the units of two runs into cells and compare them. Raises ConfigError if no unit has a score in both."""
    mine, theirs = ({u.id: u.score for u in run.units} for run in (base, other))
    cells: dict[str, list[str]] = {cell: [] for cell in CELLS}
    for id in dict.fromkeys([*mine, *theirs]):
        cells[_cell(mine.get(id), theirs.get(id))].append(id)
    versus = compare(other.units, base.units, base.seed)
    if versus is None:
        raise ConfigError(f"{base.folder} and {other.folder} share no question that both have a score for")
    return Pair(
        base=base,
        other=other,
        cells={k: tuple(v) for k, v in cells.items()},
        versus=versus,
        detectable=detectable(theirs[id] - mine[id] for id in mine if id in theirs),
    )


def listed(pair: Pair, cell: str, problems: list[str]) -> Iterator[str]:
    """Yield a line per question of a cell: index, id, what was read from both replies, how the question begins."""
    wanted = {*pair.cells[cell]}
    rows = [
        {str(r.get("id")): r for r in read_records(run.folder, problems) if str(r.get("id")) in wanted}
        for run in (pair.base, pair.other)
    ]
    for id in pair.cells[cell]:
        here, there = rows[0].get(id, {}), rows[1].get(id, {})
        index, asked = here.get("index", there.get("index", "-")), here.get("question", there.get("question", ""))
        yield f"{index!s:>6}  {id}  {_answer(here)} -> {_answer(there)}  {_short(str(asked), _ASKED)}".rstrip()


def _cell(mine: float | None, theirs: float | None) -> str:
    if mine is None or theirs is None:
        return "not-compared"
    if mine != theirs:
        return "repaired" if theirs > mine else "broken"
    return "both-right" if mine >= 1 else "both-wrong"


def _mean(run: RunResult) -> float:
    return sum(u.score for u in run.units) / len(run.units)


def _answer(record: Mapping[str, Any]) -> str:
    answer = record.get("answer")
    if record.get("error"):
        return "(failed)"
    if not isinstance(answer, Mapping) or answer.get("status") != "parsed":
        return "(none)"
    return json.dumps(_short(str(answer.get("text")), _ANSWER), ensure_ascii=False)


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
