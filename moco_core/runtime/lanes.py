"""Who has which devices: one model of a device group is served at a time, and a training has them to itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from moco_core.models import Engine
from moco_core.runtime.queues import Queue

Place = tuple[Engine, str]
"""An engine and one of its device groups."""


class Lanes:
    """The places that are taken, each by the queue that is served there, or by none. ``freed`` is called when one is free
    and nobody waits for it.
    """

    def __init__(self, freed: Callable[[], None]) -> None:
        self._freed = freed
        self._taken: dict[Place, Queue | None] = {}
        self._waiting: dict[Place, deque[asyncio.Future[None]]] = {}

    def __contains__(self, place: Place) -> bool:
        return place in self._taken

    def serves(self, place: Place, queue: Queue) -> bool:
        return self._taken.get(place) is queue

    def take(self, place: Place, queue: Queue | None) -> None:
        self._taken[place] = queue

    def release(self, place: Place) -> None:
        """Hand a place to whoever waits longest for it; it is free if nobody does."""
        del self._taken[place]
        waiting = self._waiting.get(place, ())
        while waiting:
            first = waiting.popleft()
            if not first.done():
                self._taken[place] = None
                first.set_result(None)
                return
        self._waiting.pop(place, None)
        self._freed()

    async def wait(self, place: Place) -> None:
        """Take a place as soon as it is free: those who wait come before calls."""
        if place not in self._taken:
            self._taken[place] = None
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(place, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.release(place)
            raise


class Lane:
    """One place, for work that is no call. Taking and giving back pair up however the work ends."""

    def __init__(self, lanes: Lanes, place: Place) -> None:
        self._lanes, self._place, self._held = lanes, place, False

    async def acquire(self) -> None:
        await self._lanes.wait(self._place)
        self._held = True

    def release(self) -> None:
        """Give the place back; does nothing if it is not held."""
        if self._held:
            self._held = False
            self._lanes.release(self._place)
