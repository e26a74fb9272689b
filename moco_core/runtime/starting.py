"""The start and the end of engines: each is started once, and all that are expected together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from moco_core.errors import PoolError
from moco_core.models import Engine


class Starts:
    """Starts engines when they are first needed. ``runtime`` is handed to every engine; ``fail`` is told a PoolError."""

    def __init__(self, expected: Iterable[Engine], runtime: Any, fail: Callable[[Exception], None]) -> None:
        self._expected = tuple(expected)
        self._runtime = runtime
        self._fail = fail
        self._tasks: dict[Engine, asyncio.Task[None]] = {}

    async def ready(self, engine: Engine) -> None:
        """Start an engine, and with it all that are expected; whoever comes meanwhile waits, and meets its error."""
        wanted = list(dict.fromkeys((*self._expected, engine)))
        for each in wanted:
            if each not in self._tasks:
                self._tasks[each] = asyncio.create_task(each.start(self._runtime))
        tasks = {each: self._tasks[each] for each in wanted}
        if not all(task.done() for task in tasks.values()):
            await asyncio.wait(tasks.values())
        errors = {each: error for each, task in tasks.items() if (error := task.exception()) is not None}
        for error in errors.values():
            if isinstance(error, PoolError):
                self._fail(error)
                raise error
        if engine in errors:
            raise errors[engine]

    async def close(self) -> None:
        """Stop what is starting, and close every engine that was started."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for engine in self._tasks:
            with contextlib.suppress(Exception):
                await engine.close()
