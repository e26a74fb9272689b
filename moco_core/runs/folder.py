"""Run folders, written: as the run goes on, and readable at any moment. See :mod:`moco_core.runs.records`."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from moco_core.discovery import normal
from moco_core.errors import PluginError, StoreError
from moco_core.runs import strict
from moco_core.runs.records import FORMAT, LOCK, in_order
from moco_core.runtime.locks import FileLock
from moco_core.types import Unit

_FILES = ("records.jsonl", "units.jsonl", "fit.jsonl", "dev.jsonl", "run.json")


class FolderBusy(StoreError):
    """Another process writes this run folder."""

    @classmethod
    def of(cls, path: Path) -> FolderBusy | None:
        """Return the error that opening a folder would raise, None if nobody writes it."""
        lock = FileLock(path / LOCK)
        return cls(f"{path} is being written by process {lock.holder()}") if lock.held() else None


def environment(distributions: Iterable[str]) -> dict[str, Any]:
    """Return hardware and versions, as a record states them: of the core, of these distributions and of what they need."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": _versions(distributions),
    }


def _versions(distributions: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    todo = ["moco-core", *distributions]
    while todo:
        name = normal(todo.pop())
        version, needed = _facts(name)
        if version and name not in found:
            found[name] = version
            todo += needed if name.startswith("moco-") else ()
    return dict(sorted(found.items()))


@functools.cache
def _facts(distribution: str) -> tuple[str, tuple[str, ...]]:
    """Return the version of a distribution, empty if it is not installed, and the names of what it always needs."""
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return "", ()
    needed = (r for r in found.requires or () if "extra ==" not in r)
    return found.version, tuple(re.split(r"[^\w.-]", r, maxsplit=1)[0] for r in needed)


class RunFolder:
    """Writes one run, and keeps others from writing it. A folder that holds a finished run keeps it until this one is
    finished, too.

    Opening raises FolderBusy if another process writes the folder. Every method raises StoreError with one line if the disk
    is full or read-only.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        self.head = {"format": FORMAT, **head, "started": time.time()}
        self._lock = FileLock(path / LOCK)
        self._fit: IO[str] | None = None
        with self._writing():
            path.mkdir(parents=True, exist_ok=True)
            if not self._lock.acquire():
                raise FolderBusy(f"{path} is being written by process {self._lock.holder()}")
            try:
                self._keep_previous()
                self.update(status="running")
                self._records = (path / "records.jsonl").open("w", encoding="utf-8", errors="backslashreplace")
            except BaseException:
                self._lock.release()
                raise

    def _keep_previous(self) -> None:
        """Put a finished run aside; what an unfinished one left after it goes."""
        kept = (self.path / "previous.run.json").exists()
        for name in _FILES:
            file = self.path / name
            if kept:
                file.unlink(missing_ok=True)
            elif file.exists():
                os.replace(file, self.path / f"previous.{name}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            what = f"cannot write the run folder {self.path}: {reason}"
            raise StoreError(f"{what}; choose another place with --out") from None

    def _write(self, path: Path, lines: Iterable[str]) -> None:
        """Write a file so that it is there whole or not at all."""
        temporary = path.with_name(path.name + ".tmp")
        with self._writing():
            with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{line}\n" for line in lines)
            os.replace(temporary, path)

    def update(self, **data: Any) -> None:
        """Merge facts into ``run.json``."""
        self.head |= {**data, "updated": time.time()}
        self._write(self.path / "run.json", [strict.dumps(self.head, indent=1)])

    def record(self, row: Mapping[str, Any]) -> None:
        """Append one question's record."""
        self._append(self._records, row)

    def save_dev(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write what a single model said on the dev split, one line per example."""
        self._write(self.path / "dev.jsonl", map(strict.dumps, rows))

    def note(self, phase: str, data: Mapping[str, Any]) -> None:
        """Append one line to the fit log."""
        with self._writing():
            if self._fit is None:
                self._fit = (self.path / "fit.jsonl").open("w", encoding="utf-8", errors="backslashreplace")
        self._append(self._fit, {"phase": phase, **data})

    def _append(self, file: IO[str], row: Mapping[str, Any]) -> None:
        with self._writing():
            file.write(strict.dumps(row) + "\n")
            file.flush()

    def save_system(self, body: Mapping[str, Any]) -> Path:
        """Write ``system/system.json`` and return an empty folder for the system's files.

        Raises PluginError if JSON cannot hold a part: a system must be restored as it was.
        """
        for name, part in body.items():
            if found := strict.problem(part, name):
                raise PluginError(f"the fitted system cannot be saved: {found}")
        folder = self.path / "system"
        with self._writing():
            shutil.rmtree(folder / "files", ignore_errors=True)  # those of a fit that was killed, or is done again
            (folder / "files").mkdir(parents=True)
        self._write(folder / "system.json", [strict.dumps({"format": FORMAT, **body}, indent=1)])
        return folder / "files"

    def close(self, units: Iterable[Unit], **data: Any) -> None:
        """Write what statistics count and the final facts. A finished run replaces what the folder held before."""
        try:
            with self._writing():
                self._close_logs()
                rows = ({"id": u.id, "score": u.score, "subset": u.subset} for u in units)
                self._write(self.path / "units.jsonl", map(strict.dumps, rows))
                self.update(**data)
                if data.get("status") == "finished":
                    for name in _FILES:
                        (self.path / f"previous.{name}").unlink(missing_ok=True)
        finally:
            self._lock.release()

    def _close_logs(self) -> None:
        """Close the logs, and put the records into the dataset's order for people; readers take them in any order."""
        self._records.close()
        if self._fit is not None:
            self._fit.close()
        path = self.path / "records.jsonl"
        ordered = path.with_name(path.name + ".tmp")
        try:
            with path.open("rb") as file, ordered.open("wb") as out:
                out.writelines(line for _, line in in_order(file))
            os.replace(ordered, path)
        except OSError:  # no room for a second copy
            ordered.unlink(missing_ok=True)
