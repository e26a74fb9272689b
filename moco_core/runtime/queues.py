"""The calls of one model between the scheduler and its engine."""

from __future__ import annotations

import collections
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from moco_core.models import Call, Model

__all__ = ["UNLIMITED", "Owner", "Queue"]

UNLIMITED = 1 << 30


class Owner(Protocol):
    """What a queue needs of its scheduler; all of it may be called from any thread."""

    closing: bool

    def demand(self) -> Mapping[str, int]: ...

    def store_and_deliver(self, results: Sequence[tuple[Call, Any]]) -> None: ...

    def deliver(self, outcomes: Sequence[tuple[Call, Any]]) -> None: ...


class Queue:
    """The calls of one model that wait, and those that its engine has taken. The engine's side of it is ``Inbox``."""

    def __init__(self, model: Model, scheduler: Owner) -> None:
        self.model = model
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self._waiting: collections.deque[Call] = collections.deque()
        self.taken: dict[int, Call] = {}
        self._limit = UNLIMITED
        self.serving = False

    def push(self, calls: Sequence[Call]) -> None:
        with self._lock:
            self._waiting.extend(calls)

    def put_back(self) -> None:
        """Return what was taken and not answered to the head of the queue."""
        with self._lock:
            self._waiting.extendleft(reversed(self.taken.values()))
            self.taken.clear()

    def halve(self, batch: int) -> None:
        self._limit = max(1, min(self._limit, batch) // 2)

    # ---- Inbox

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def demand(self) -> Mapping[str, int]:
        return self._scheduler.demand()

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def cancelled(self) -> bool:
        return self._scheduler.closing

    def take(self, n: int | None = None) -> list[Call]:
        with self._lock:
            room = self._limit - len(self.taken)
            count = max(0, min(len(self._waiting), room if n is None else n, room))
            calls = [self._waiting.popleft() for _ in range(count)]
            for call in calls:
                self.taken[id(call)] = call
        return calls

    def resolve(self, results: Sequence[tuple[Call, Any]]) -> None:
        with self._lock:
            for call, _ in results:
                self.taken.pop(id(call), None)
        self._scheduler.store_and_deliver(results)

    def reject(self, call: Call, error: Exception) -> None:
        with self._lock:
            self.taken.pop(id(call), None)
        self._scheduler.deliver([(call, error)])
