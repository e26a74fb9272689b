"""A run folder as far as it can be read: its head, and its records one by one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moco_core import ConfigError, RunResult, read_records, suggest
from moco_core.runs.records import read_run

__all__ = ["count", "head_of", "record_of", "sorts_of"]


def head_of(folder: Path) -> tuple[RunResult, Mapping[str, Any]]:
    """Return what ``run.json`` tells, without units, and its raw facts.

    Raises ConfigError if the folder is no run, StoreError if the file is damaged.
    """
    if not (folder / "run.json").is_file():
        raise ConfigError(f"{folder}: not a run folder (no run.json); moco runs lists those below a folder")
    head = read_run(folder)
    return RunResult.of(folder, head, ()), head


def sorts_of(record: Mapping[str, Any]) -> set[str]:
    """Return what a record is: ``failed``, or ``right`` or ``wrong`` where it has a score, and ``unread`` besides."""
    if record.get("error"):
        return {"failed"}
    score, answer = record.get("score"), record.get("answer")
    found = {"right" if score >= 1 else "wrong"} if isinstance(score, int | float) and math.isfinite(score) else set()
    unread = isinstance(answer, Mapping) and answer.get("status") != "parsed"
    return found | ({"unread"} if unread else set())


def count(records: Iterator[Mapping[str, Any]]) -> Counter[str]:
    """Count records by sort; ``recorded`` is how many there are."""
    found: Counter[str] = Counter()
    for record in records:
        found.update(["recorded", *sorts_of(record)])
    return found


def record_of(run: RunResult, question: str) -> dict[str, Any]:
    """Return a question's record by its id, else by its index. Raises ConfigError if there is none."""
    by_index: dict[str, Any] | None = None
    problems: list[str] = []
    ids: list[str] = []
    for record in read_records(run.folder, problems):
        ids.append(str(record.get("id")))
        if ids[-1] == question:
            return record
        if str(record.get("index", len(ids) - 1)) == question:
            by_index = record
    if by_index is not None:
        return by_index
    told = f"{run.folder}: no record of question {question!r}{suggest(question, ids)}"
    raise ConfigError(
        [f"{told}; {len(ids)} of {run.questions} questions are recorded, the run is {run.status}", *problems]
    )
