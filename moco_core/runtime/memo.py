"""Computations with a JSON result, done at most once ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from moco_core.runtime.cache import Cache, KeyParts, encode_result
from moco_core.types import canonical, digest


class Memo:
    """Results in a cache under the digest of what decides them. Use it in one event loop."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.tasks: dict[bytes, asyncio.Task[Any]] = {}
        """The computations that are under way, by key."""

    async def once(self, what: Mapping[str, Any], compute: Callable[[], Awaitable[Any]]) -> Any:
        """Return the stored result of ``what``, computed if there is none; whoever comes meanwhile shares it."""
        parts = KeyParts(
            model="", kind="once", input=digest(what)[:32], params=canonical(dict(what).get("kind", "")), seed=""
        )
        key = parts.key()
        found = self._cache.get_many([key])
        if key in found:
            return found[key].value
        running = self.tasks.get(key)
        if running is None:

            async def work() -> Any:
                started = time.monotonic()
                value = await compute()
                first = self._cache.put_many([(key, parts, encode_result(value), time.monotonic() - started)])
                if isinstance(version := what.get("version"), int):
                    self._cache.note_makers({key.hex(): (str(what.get("kind", "")), version)})
                return first[key].value if key in first else value

            running = self.tasks[key] = asyncio.create_task(work())
            running.add_done_callback(lambda _: self.tasks.pop(key, None))
        return await asyncio.shield(running)
