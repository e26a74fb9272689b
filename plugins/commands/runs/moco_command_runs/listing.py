"""The runs in a folder, from their ``run.json`` alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from moco_core import ConfigError, RunResult, StoreError
from moco_core.cli.screen import printable
from moco_core.runs.records import read_run

__all__ = ["Listed", "find", "lines"]

_COLUMNS = ("system", "dataset", "seed", "date", "score", "95% interval", "n", "status", "folder")
_LEFT = {0, 1, 3, 7, 8}


@attrs.frozen(kw_only=True)
class Listed:
    """A run in the list. ``score`` has ``mean``, ``low``, ``high`` and ``n``; None while there is none."""

    run: RunResult
    started: datetime | None
    score: Mapping[str, float] | None

    @classmethod
    def read(cls, folder: Path) -> Listed:
        """Read a run folder. Raises StoreError if it cannot be read."""
        head = read_run(folder)
        return cls(
            run=RunResult.of(folder, head, ()), started=_date(head.get("started")), score=_score(head.get("score"))
        )

    def matches(self, methods: Sequence[str], datasets: Sequence[str], statuses: Sequence[str]) -> bool:
        """Whether the run is one of those asked for; nothing given asks for all."""
        wanted = (
            (methods, {self.run.label, self.run.method} | ({"single"} if self.run.role == "baseline" else set())),
            (datasets, {self.run.dataset, str(self.run.config["dataset"]["name"])}),
            (statuses, {self.run.status}),
        )
        return all(not given or found & {*given} for given, found in wanted)

    def begun(self, since: datetime | None, until: datetime | None) -> bool:
        """Whether the run began between two days, both included, in local time; one without a date is in none."""
        if since is None and until is None:
            return True
        if self.started is None:
            return False
        day = self.started.astimezone().date()
        return (since is None or since.date() <= day) and (until is None or day <= until.date())

    def scored(self, least: float | None, most: float | None) -> bool:
        """Whether the run's score lies between two scores, both included; one without a score has none to ask for."""
        if least is None and most is None:
            return True
        mean = math.nan if self.score is None else self.score["mean"]
        return mean >= (-math.inf if least is None else least) and mean <= (math.inf if most is None else most)

    def data(self) -> dict[str, Any]:
        """Return the run as JSON data; ``started`` is in UTC."""
        run = self.run
        return {
            "folder": str(run.folder),
            "label": run.label,
            "role": run.role,
            "method": run.method,
            "dataset": run.dataset,
            "metric": run.metric,
            "seed": run.seed,
            "models": list(run.models),
            "started": None if self.started is None else self.started.isoformat(timespec="seconds"),
            "status": run.status,
            "score": self.score,
            "questions": run.questions,
            "failed": run.failed,
            "error": run.first_error,
        }

    def cells(self) -> list[str]:
        """Return what the table shows, by its columns; the date is in local time."""
        run, score = self.run, self.score
        return [
            f"{run.label} (single)" if run.role == "baseline" else run.label,
            run.dataset,
            str(run.seed),
            "-" if self.started is None else f"{self.started.astimezone():%Y-%m-%d %H:%M}",
            "-" if score is None else f"{score['mean']:.3f}",
            "" if score is None else f"[{score['low']:.3f}, {score['high']:.3f}]",
            "-" if score is None else f"{score['n']:.0f}",
            run.status,
            str(run.folder),
        ]


def find(folder: Path) -> tuple[list[Listed], list[str]]:
    """Return the runs in a folder and below it, the latest last, and one line for every run that cannot be read.

    Raises ConfigError if there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the one that --out named, or make runs with moco run")
    found, problems = [], []
    for file in sorted(folder.glob("**/run.json")):
        try:
            found.append(Listed.read(file.parent))
        except StoreError as error:
            problems.append(str(error))
    if not found and not problems:
        raise ConfigError(f"{folder}: holds no run (no run.json in it or below it)")
    return sorted(found, key=lambda r: r.started.timestamp() if r.started else 0.0), problems


def lines(runs: Iterable[Listed]) -> list[str]:
    """Return the runs as an aligned table, wide characters counted as the terminal shows them."""
    table = [[printable(" ".join(cell.split())) for cell in row] for row in (_COLUMNS, *(r.cells() for r in runs))]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    return ["  ".join(_padded(i, c, w) for i, (c, w) in enumerate(zip(r, widths, strict=True))).rstrip() for r in table]


def _padded(column: int, cell: str, width: int) -> str:
    space = " " * (width - _width(cell))
    return cell + space if column in _LEFT else space + cell


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # here, since most lists do without it

    return cell_len(text)


def _date(value: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(value, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _score(value: Any) -> dict[str, float] | None:
    try:
        return {name: float(value[name]) if name != "n" else int(value[name]) for name in ("mean", "low", "high", "n")}
    except (TypeError, ValueError, KeyError):
        return None
