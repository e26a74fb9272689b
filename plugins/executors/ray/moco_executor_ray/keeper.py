"""The one process that opens the call cache of a grid, and hears what its runs tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moco_core.errors import StoreError
from moco_core.runtime.cache import Cache, KeyParts, Stored, decode_result

__all__ = ["Keeper", "KeptCache"]

Told = tuple[str, Any]
"""A hook of observers and its event."""


class Keeper:
    """An actor on the run's own machine. It alone opens the cache: SQLite's log of writes needs memory that all who write
    share, which no network file system gives.

    Nothing is raised: an error is a result, and enters no log.
    """

    def __init__(self, cache: str | None) -> None:
        self._cache = Cache(None if cache is None else Path(cache))
        self._told: list[Told] = []
        self._first = 0
        self._news = asyncio.Event()
        self._stopping = False

    async def do(self, method: str, given: Sequence[Any]) -> Any:
        """Call a method of the cache."""
        try:
            return getattr(self._cache, method)(*given)
        except StoreError as error:
            return error

    async def read_only(self) -> bool:
        """Return whether nothing can be stored."""
        return self._cache.read_only

    async def find(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes, float | None]] | StoreError:
        """Return the stored results of those keys that have one, encoded."""
        rows: list[Any] = []
        try:
            for start in range(0, len(keys), 500):
                chunk = keys[start : start + 500]
                marks = ",".join("?" * len(chunk))
                rows += self._cache.execute(f"SELECT key, value, seconds FROM calls WHERE key IN ({marks})", chunk)
        except Exception as error:
            return StoreError(f"cannot read the call cache {self._cache.path}: {error}")
        return rows

    async def tell(self, events: Sequence[Told]) -> bool:
        """Take in what runs tell; return whether they are to stop."""
        if events:
            self._told += events
            self._news.set()
        return self._stopping

    async def told(self, since: int, patience: float) -> tuple[int, list[Told]]:
        """Return what was told from number ``since`` on, and the number of the first; nothing if nothing is for a while.

        What came before has been heard, and is forgotten: the memory of a long grid stays flat.
        """
        if since > self._first:
            del self._told[: since - self._first]
            self._first = since
        if not self._told and patience:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), patience)
        return self._first, list(self._told)

    async def stop(self) -> None:
        self._stopping = True


class KeptCache(Cache):
    """The cache of a grid, as a run on any machine uses it; ``path`` is where its artifacts lie beside."""

    def __init__(self, path: Path | None, keeper: Any) -> None:
        self.path = path
        self._keeper = keeper
        self.read_only = bool(self._ask("read_only"))

    def _ask(self, method: str, *given: Any) -> Any:
        import ray

        try:
            # by a future: a task that waits in ray.get lends its CPU, and Ray would begin a further run on it
            found = getattr(self._keeper, method).remote(*given).future().result()
        except ray.exceptions.RayError as error:
            raise StoreError(f"the process that keeps the call cache is gone: {type(error).__name__}") from None
        if isinstance(found, Exception):
            raise found
        return found

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Stored]:
        found = {}
        for key, value, seconds in self._ask("find", list(keys)) if keys else ():
            try:
                found[key] = Stored(decode_result(value), seconds)
            except ValueError:  # damaged: as good as absent
                continue
        return found

    def put_many(self, rows: Iterable[tuple[bytes, KeyParts, bytes, float | None]]) -> dict[bytes, Stored]:
        first: dict[bytes, Stored] = self._ask("do", "put_many", (given,)) if (given := list(rows)) else {}
        return first

    def note_makers(self, makers: Mapping[str, tuple[str, int]]) -> None:
        self._ask("do", "note_makers", (dict(makers),))

    def claim(self, keys: Sequence[bytes], owner: str, seconds: float) -> set[bytes]:
        others: set[bytes] = self._ask("do", "claim", (list(keys), owner, seconds)) if keys else set()
        return others

    def release(self, keys: Sequence[bytes], owner: str) -> None:
        if keys:
            self._ask("do", "release", (list(keys), owner))

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._ask("do", "execute", (statement, list(values)))
        return rows

    def close(self) -> None:
        """The keeper closes it."""
