"""Run folders, read: everything needed to check a run, whoever wrote it and however it ended.

``run.json`` holds configuration, versions, seeds, timings, costs and scores; ``records.jsonl`` one line per test question;
``units.jsonl`` what statistics count; ``fit.jsonl`` what fitting noted; ``dev.jsonl`` what a single model said on dev;
``system/`` the fitted system. Whoever writes a folder holds a lock on its file ``.lock``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from moco_core.errors import StoreError
from moco_core.runtime.locks import FileLock
from moco_core.types import Unit

FORMAT = 1
"""Version of the run folder's form. Readers accept all versions up to their own; what is only added raises no number."""

LOCK = ".lock"
_AGAIN = "run it again (what is in the call cache is not computed again)"
_INDEX = re.compile(rb'\{"index": (\d+)')


def read_facts(path: Path, absent: str) -> dict[str, Any]:
    """Read a JSON file of a run folder that states its format. Raises StoreError: ``absent``, damaged or of a later format."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(absent) from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise StoreError(f"{path}: damaged, expected a mapping; {_AGAIN}")
    found = data.get("format")
    if type(found) is not int or not 1 <= found <= FORMAT:
        newer = type(found) is int and found > FORMAT
        raise StoreError(
            f"{path}: format {found!r}, this version reads {FORMAT}; {'upgrade moco-core' if newer else _AGAIN}"
        )
    return data


def read_run(folder: Path) -> dict[str, Any]:
    """Read ``run.json``. A run whose process was killed is said to be interrupted.

    Raises StoreError if it is absent, damaged or of a later format.
    """
    data = read_facts(folder / "run.json", f"{folder}: not a run folder (no run.json)")
    if data.get("status") == "running" and not FileLock(folder / LOCK).held():
        data |= {"status": "interrupted", "error": "its process was killed"}
    return data


def read_units(folder: Path) -> tuple[Unit, ...]:
    """Read what statistics count of a run. Raises StoreError if a line is damaged or the file is absent."""
    path = folder / "units.jsonl"
    units = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    units.append(Unit(str(row["id"]), _finite(row["score"]), str(row["subset"])))
                except (ValueError, TypeError, KeyError):
                    raise StoreError(f"{path}: line {number} is damaged; {_AGAIN}") from None
    except FileNotFoundError:
        raise StoreError(f"{path}: missing, the run was killed or an earlier version wrote it; {_AGAIN}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
    return tuple(units)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("no score")
    return number


def read_records(folder: Path, problems: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of a run in the dataset's order. What a crash cut off at the end is left out.

    Any other damaged line raises StoreError; where ``problems`` is given, it is told there and left out.
    """
    path = folder / "records.jsonl"
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
    with file:
        for number, line in in_order(file):
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("no mapping")
            except ValueError:
                told = f"{path}: line {number} is damaged; {_AGAIN}"
                if problems is None:
                    raise StoreError(told) from None
                problems.append(told)
                continue
            yield row


def in_order(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of the lines of a file of records by the question's index; one without is taken as it comes."""
    places: list[tuple[int, int, int]] = []
    offset = 0
    for number, line in enumerate(file):
        if line.endswith(b"\n"):  # else a crash cut it off
            found = _INDEX.match(line)
            places.append((int(found[1]) if found else number, number, offset))
        offset += len(line)
    for _, number, place in sorted(places):
        file.seek(place)
        yield number + 1, file.readline()
