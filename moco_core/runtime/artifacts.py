"""The store of artifacts: folders of files (trained weights, fitted heads, graphs) under the digest of what decides them.

An artifact is built at most once ever: one builder per key across processes, in a folder beside its final place, renamed
when it is whole. Whoever needs one that was pruned builds it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from moco_core.errors import StoreError
from moco_core.runtime.locks import FileLock
from moco_core.types import digest

FACTS = "artifact.json"
"""The file within an artifact that tells what it is; its time of change is that of its last use."""

_FORMAT = 1
_LOOK = 0.2  # seconds between two looks at a builder of another process


class Artifacts:
    """Artifacts under one root, or for None in a temporary folder until :meth:`close`. Those of ``theirs`` are used as well."""

    def __init__(self, root: Path | None, theirs: Path | None = None) -> None:
        self._theirs = theirs
        self._temporary = tempfile.TemporaryDirectory(prefix="moco-") if root is None else None
        self.root = Path(self._temporary.name) if self._temporary else root or Path()
        self._building: dict[str, asyncio.Task[Path]] = {}

    async def get(
        self, what: Mapping[str, Any], build: Callable[[Path], Awaitable[None]], *, resume: bool = False
    ) -> Path:
        """Return the folder of ``what``; see :meth:`moco_core.context.Context.artifact`. Raises StoreError and what
        ``build`` raises.
        """
        key = digest("artifact", _FORMAT, what)[:40]
        running = self._building.get(key)
        if running is None:
            running = self._building[key] = asyncio.create_task(self._get(key, what, build, resume))
            running.add_done_callback(
                lambda task: (self._building.pop(key, None), task.cancelled() or task.exception())
            )
        return await asyncio.shield(running)

    async def _get(
        self, key: str, what: Mapping[str, Any], build: Callable[[Path], Awaitable[None]], resume: bool
    ) -> Path:
        if self._theirs is not None and self._use(self._theirs / key):
            return self._theirs / key
        folder = self.root / key
        if self._use(folder):
            return folder
        partial = self.root / f"{key}.partial"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            async with _locked(self.root / f"{key}.lock"):
                if self._use(folder):
                    return folder
                if not resume:
                    shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(exist_ok=True)
                started = time.monotonic()
                await build(partial)
                facts = {"format": _FORMAT, "what": what, "seconds": time.monotonic() - started, "created": time.time()}
                (partial / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True), encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)  # a damaged one, without facts
                os.replace(partial, folder)
        except OSError as error:
            raise StoreError(
                f"cannot write the artifact {folder}: {error.strerror or error}; free some space or choose another "
                "place with --cache PATH"
            ) from error
        return folder

    def _use(self, folder: Path) -> bool:
        """Return whether the artifact is there, and note that it was used."""
        try:
            os.utime(folder / FACTS)
        except FileNotFoundError:
            return False
        except OSError:
            return (folder / FACTS).is_file()  # somebody else's store: readable is enough
        return True

    def close(self) -> None:
        """Remove a temporary store."""
        if self._temporary is not None:
            self._temporary.cleanup()


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    lock = FileLock(path)
    while not lock.acquire():
        await asyncio.sleep(_LOOK)
    try:
        yield
    finally:
        lock.release()
