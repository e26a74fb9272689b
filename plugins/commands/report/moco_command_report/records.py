"""The records of a run by the question's id: where they lie is read first, then each once, when it is wanted."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from moco_core import StoreError

__all__ = ["Records", "asked_of"]

_HEAD = re.compile(rb'\{"index": \d+, "id": ("(?:[^"\\]|\\.)*")')


class Records:
    """The records of one run, in an open file. ``problems`` are its damaged lines; what a crash cut off is none of them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "records.jsonl"
        self.problems: list[str] = []
        self._places: dict[str, int] = {}
        self._file: IO[bytes] = io.BytesIO()
        try:
            self._file = self.path.open("rb")
            self._find()
        except FileNotFoundError:
            pass  # a run that was killed before its first answer
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror or error}") from None

    def _find(self) -> None:
        offset = 0
        for number, line in enumerate(self._file, 1):
            if line.endswith(b"\n"):
                found = _HEAD.match(line)
                try:
                    id = json.loads(found[1]) if found else str(_mapping(json.loads(line))["id"])
                    self._places[id] = offset
                except (ValueError, TypeError, KeyError):
                    self._damaged(f"line {number}")
            offset += len(line)

    def _damaged(self, where: str) -> None:
        self.problems.append(f"{self.path}: {where} is damaged; run it again")

    def ids(self) -> list[str]:
        """Return the ids of the recorded questions, as they stand in the file."""
        return list(self._places)

    def get(self, id: str) -> Mapping[str, Any] | None:
        """Return a question's record, None if there is none or it is damaged."""
        if (place := self._places.get(id)) is None:
            return None
        self._file.seek(place)
        try:
            return _mapping(json.loads(self._file.readline()))
        except (ValueError, TypeError):
            del self._places[id]
            self._damaged(f"the record of question {id!r}")
            return None

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (record for id in self.ids() if (record := self.get(id)) is not None)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def asked_of(record: Mapping[str, Any]) -> str:
    """Return the question's text: as the record tells it, else (earlier versions) what the first call asked."""
    if isinstance(record.get("question"), str):
        return str(record["question"])
    calls = record.get("calls")
    for call in calls if isinstance(calls, Sequence) else ():
        seen = call.get("seen") if isinstance(call, Mapping) else None
        turns = seen.get("messages") if isinstance(seen, Mapping) else None
        if isinstance(turns, list) and turns and isinstance(turns[-1], list) and len(turns[-1]) == 2:
            return str(turns[-1][1])
    return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("no mapping")
    return value
