"""Which runs a report shows: all that can be read, however they ended and whoever wrote them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moco_command_report.records import Records
from moco_core import ConfigError, RunResult, StoreError, Unit
from moco_core.runs.records import read_run, read_units
from moco_toolkit_comparison import comparable

__all__ = ["Loaded", "load"]


class Loaded:
    """Runs with the raw facts of their ``run.json``, by folder; ``problems`` are folders that cannot be read, ``notes`` what
    else a reader has to know.
    """

    def __init__(self) -> None:
        self.runs: list[RunResult] = []
        self.heads: dict[Path, dict[str, Any]] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def add(self, folder: Path) -> None:
        """Read a run folder. One without usable units (an earlier version, a damaged file) is scored by its records."""
        try:
            head = read_run(folder)
            run = RunResult.of(folder, head, _units(folder, head, self.notes))
        except StoreError as error:
            self.problems.append(str(error))
            return
        self.heads[folder] = head
        self.runs.append(run)


def load(places: Sequence[Path], force: bool = False) -> Loaded:
    """Read the runs in these folders and below them.

    What one place holds is one benchmark: its datasets and metrics stand side by side. Places that are named together are to
    be compared.
    Raises ConfigError if a place is no folder or holds no run, and unless forced if runs to be compared differ in more
    than their system.
    """
    out, seen = Loaded(), set[Path]()
    for place in places:
        if not place.is_dir():
            raise ConfigError(f"{place}: no such folder")
        files = sorted(place.glob("**/run.json"))
        if not files:
            raise ConfigError(f"{place}: holds no run (no run.json in it or below it)")
        for file in files:
            if file.parent.resolve() not in seen:
                seen.add(file.parent.resolve())
                out.add(file.parent)
    if not out.runs:
        raise ConfigError(out.problems)
    found = comparable(out.runs, force, side_by_side=len(places) == 1)
    out.notes += [f"not comparable: {line}" for line in found]
    out.runs.sort(key=lambda r: (r.dataset, r.position, r.id))
    return out


def _units(folder: Path, head: dict[str, Any], notes: list[str]) -> tuple[Unit, ...]:
    if "score" not in head:
        return ()
    try:
        return read_units(folder)
    except StoreError as error:
        with Records(folder) as records:
            found = [
                Unit(str(record["id"]), float(score), str(record.get("subset") or ""))
                for record in records
                if isinstance(score := record.get("score"), int | float) and math.isfinite(score)
            ]
        notes.append(f"{str(error).split(';')[0]}; {len(found)} scores are those of its records")
        return tuple(found)
