"""Who has which devices: one model of a device group is served at a time, and a training has them to itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from moco_core.models import Engine
from moco_core.runtime.queues import Queue

DeviceGroup = tuple[Engine, str]
"""An engine and one of its device groups."""


class Devices:
    """The device groups that are taken, by a queue that is served there or by other work.

    ``freed`` is called when one is free and nobody waits for it.
    """

    def __init__(self, freed: Callable[[], None]) -> None:
        self._freed = freed
        self._taken: dict[DeviceGroup, Queue | None] = {}
        self._waiting: dict[DeviceGroup, deque[asyncio.Future[None]]] = {}

    def __contains__(self, group: DeviceGroup) -> bool:
        return group in self._taken

    def serves(self, group: DeviceGroup, queue: Queue) -> bool:
        return self._taken.get(group) is queue

    def take(self, group: DeviceGroup, queue: Queue) -> None:
        self._taken[group] = queue

    def release(self, group: DeviceGroup) -> None:
        """Hand a group to whoever waits longest for it; it is free if nobody does."""
        del self._taken[group]
        waiting = self._waiting.get(group, ())
        while waiting:
            first = waiting.popleft()
            if not first.done():
                self._taken[group] = None
                first.set_result(None)
                return
        self._waiting.pop(group, None)
        self._freed()

    async def wait(self, group: DeviceGroup) -> None:
        """Take a group as soon as it is free: those who wait come before calls."""
        if group not in self._taken:
            self._taken[group] = None
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(group, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.release(group)
            raise


class Reservation:
    """A device group held for work that is no call. Taking and giving back pair up however the work ends."""

    def __init__(self, devices: Devices, group: DeviceGroup) -> None:
        self._devices, self._group, self._held = devices, group, False

    async def acquire(self) -> None:
        await self._devices.wait(self._group)
        self._held = True

    def release(self) -> None:
        """Give the group back; does nothing if it is not held."""
        if self._held:
            self._held = False
            self._devices.release(self._group)
