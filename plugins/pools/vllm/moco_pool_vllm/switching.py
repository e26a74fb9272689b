"""Time-slicing: engines that do not fit together take turns on their device group, with the fewest changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

__all__ = ["EngineSwitcher"]


class EngineSwitcher:
    """Whose turn it is on one device group.

    A call enters with the key of its engine. The engine whose turn it is keeps it while any of its calls is under way or
    waits; then the one with the most waiting calls gets it. ``change(old, new)`` makes room and opens the new one; if it
    raises, the calls of the new one meet the error and the turn is free again.
    """

    def __init__(self, change: Callable[[str | None, str], Awaitable[None]]) -> None:
        self.current: str | None = None
        self.changes = 0
        self._change = change
        self._waiting: Counter[str] = Counter()
        self._active = 0
        self._changing = False
        self._moved = asyncio.Condition()

    @asynccontextmanager
    async def enter(self, key: str) -> AsyncIterator[None]:
        """Hold the turn of ``key`` during one call."""
        async with self._moved:
            self._waiting[key] += 1
            try:
                while self.current != key or self._changing:
                    if not self._changing and self._active == 0 and self._next() == key:
                        await self._give(key)
                    else:
                        await self._moved.wait()
            finally:
                self._waiting[key] -= 1
                if not self._waiting[key]:
                    del self._waiting[key]
                self._moved.notify_all()
            self._active += 1
        try:
            yield
        finally:
            async with self._moved:
                self._active -= 1
                self._moved.notify_all()

    def _next(self) -> str | None:
        if self.current is not None and self._waiting[self.current]:
            return self.current
        return max(self._waiting, key=lambda k: (self._waiting[k], k), default=None)

    async def _give(self, key: str) -> None:
        self._changing = True
        old, self.current = self.current, None
        self._moved.release()  # others may queue up meanwhile
        try:
            await self._change(old, key)
        finally:
            await self._moved.acquire()
            self._changing = False
        self.current = key
        self.changes += 1
        self._moved.notify_all()
