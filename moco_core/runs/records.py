"""Run folders: everything needed to check a run, written while it runs and readable at any moment.

``run.json`` holds configuration, versions, seeds, timings, tokens and scores; ``records.jsonl`` one line per test question;
``fit.jsonl`` what fitting noted; ``system/`` the fitted system. What is secret is masked before it comes here: everything
else, a method's options and state above all, is written as it is.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from moco_core.errors import StoreError
from moco_core.secrets import MASK, is_secret_name
from moco_core.types import Unit

__all__ = ["FORMAT", "RunFolder", "environment", "masked", "read_records", "read_run"]

FORMAT = 1
"""Version of the run folder's form. Readers accept all versions up to their own."""


def masked(value: Any, name: str = "") -> Any:
    """Return the options of a pool with texts under secret-looking keys masked: not every pool declares them as Secret."""
    if isinstance(value, Mapping):
        return {k: masked(v, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(v, name) for v in value]
    return MASK if isinstance(value, str) and value and is_secret_name(name) else value


def environment(distributions: Mapping[str, str]) -> dict[str, Any]:
    """Return hardware and versions, as a record states them."""
    versions = dict(distributions)
    for name in ("moco-core", "torch", "transformers", "vllm", "openai", "peft", "mergekit", "datasets"):
        try:
            versions.setdefault(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": dict(sorted(versions.items())),
    }


class RunFolder:
    """Writes one run. A folder that holds an earlier run keeps it until this one is finished.

    Every method raises StoreError with one line if the disk is full or read-only.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        self._head = dict(head)
        self._started = time.time()
        self._records: IO[str] | None = None
        self._fit: IO[str] | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            for name in ("records.jsonl", "run.json", "fit.jsonl"):
                if (path / name).exists():
                    os.replace(path / name, path / f"previous.{name}")
        except OSError as error:
            raise self._problem(error) from None
        self.update(status="running")
        try:
            self._records = (path / "records.jsonl").open("w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise self._problem(error) from None

    def _problem(self, error: OSError) -> StoreError:
        reason = error.strerror or str(error)
        return StoreError(f"cannot write the run folder {self.path}: {reason}; choose another place with --out")

    def update(self, **data: Any) -> None:
        """Merge facts into ``run.json`` and write it atomically."""
        self._head.update(data)
        body = {"format": FORMAT, **self._head, "started": self._started, "updated": time.time()}
        self._write_json(self.path / "run.json", body)

    def _write_json(self, path: Path, body: Any) -> None:
        temporary = path.with_name(path.name + ".tmp")
        try:
            with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
                json.dump(body, file, indent=1, ensure_ascii=False)
                file.write("\n")
            os.replace(temporary, path)
        except OSError as error:
            raise self._problem(error) from None

    def record(self, row: Mapping[str, Any]) -> None:
        """Append one question's record."""
        assert self._records is not None
        self._append(self._records, row)

    def note(self, phase: str, data: Mapping[str, Any]) -> None:
        """Append one line to the fit log."""
        try:
            if self._fit is None:
                self._fit = (self.path / "fit.jsonl").open("w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise self._problem(error) from None
        self._append(self._fit, {"phase": phase, **data})

    def _append(self, file: IO[str], row: Mapping[str, Any]) -> None:
        try:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
            file.flush()
        except OSError as error:
            raise self._problem(error) from None

    def save_system(self, body: Mapping[str, Any]) -> Path:
        """Write ``system/system.json`` and return the folder for the system's files."""
        folder = self.path / "system"
        try:
            folder.mkdir(exist_ok=True)
            (folder / "files").mkdir(exist_ok=True)
        except OSError as error:
            raise self._problem(error) from None
        self._write_json(folder / "system.json", {"format": FORMAT, **body})
        return folder / "files"

    def close(self, **data: Any) -> None:
        """Write the final facts. A finished run replaces what the folder held before."""
        for file in (self._records, self._fit):
            if file is not None and not file.closed:
                try:
                    file.close()
                except OSError as error:
                    raise self._problem(error) from None
        self.update(**data)
        if data.get("status") == "finished":
            for name in ("records.jsonl", "run.json", "fit.jsonl"):
                (self.path / f"previous.{name}").unlink(missing_ok=True)


def read_run(folder: Path) -> dict[str, Any]:
    """Read ``run.json``. Raises StoreError if it is absent, damaged or of a later format."""
    try:
        data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{folder}: not a run folder (no run.json)") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder}/run.json: cannot be read: {error}") from None
    if not isinstance(data, dict) or data.get("format", 0) > FORMAT:
        raise StoreError(f"{folder}: run format {data.get('format')} is newer than this moco-core; upgrade it")
    return data


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a run; a last line that was cut by a crash is skipped."""
    try:
        with (folder / "records.jsonl").open(encoding="utf-8") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:
                    return
    except FileNotFoundError:
        return


def plain_units(units: list[Unit]) -> list[list[Any]]:
    return [[u.id, u.score, u.subset] for u in units]
