"""The calls of one model between the scheduler and its engine."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from moco_core.errors import MocoError, ModelCallError
from moco_core.models import Call, Model

UNLIMITED = 1 << 30


class Owner(Protocol):
    """What a queue needs of its scheduler; all of it may be called from any thread."""

    closing: bool

    def demand(self) -> Mapping[str, int]: ...

    def store_and_deliver(self, results: Sequence[tuple[Call, Any, float | None]]) -> None: ...

    def deliver(self, outcomes: Sequence[tuple[Call, Any]]) -> None: ...


class Queue:
    """The calls of one model that wait, and those that its engine has taken. The engine's side of it is ``Inbox``.

    Calls served together share the time: each is charged its part of every moment between being taken and answered, so
    that the seconds of all calls add up to the time the engine was busy.
    """

    def __init__(self, model: Model, scheduler: Owner, limit: int = UNLIMITED) -> None:
        self.model = model
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self._waiting: collections.deque[Call] = collections.deque()
        self._taken: dict[Call, float] = {}  # with the share of time at which it was taken
        self._share = 0.0
        self._at = 0.0
        self.limit = limit

    def push(self, calls: Sequence[Call]) -> None:
        with self._lock:
            self._waiting.extend(calls)

    def drop(self, call: Call) -> bool:
        """Remove a call from those that wait; return False if its engine has taken it."""
        with self._lock:
            if call in self._taken:
                return False
            with contextlib.suppress(ValueError):
                self._waiting.remove(call)
        return True

    def put_back(self) -> None:
        """Return what was taken and not answered to the head of the queue."""
        with self._lock:
            self._waiting.extendleft(reversed(self._taken))
            self._taken.clear()

    def drain(self) -> list[Call]:
        """Remove and return what was taken and not answered."""
        with self._lock:
            calls = list(self._taken)
            self._taken.clear()
        return calls

    def withdraw(self) -> list[Call]:
        """Remove and return what waits."""
        with self._lock:
            calls = list(self._waiting)
            self._waiting.clear()
        return calls

    def halve(self, batch: int) -> None:
        self.limit = max(1, min(self.limit, batch) // 2)

    @property
    def serving(self) -> int:
        """How many calls its engine has taken and not answered."""
        return len(self._taken)

    def _advance(self) -> None:
        now = time.monotonic()
        if self._taken:
            self._share += (now - self._at) / len(self._taken)
        self._at = now

    # ---- Inbox

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def demand(self) -> Mapping[str, int]:
        return self._scheduler.demand()

    @property
    def cancelled(self) -> bool:
        return self._scheduler.closing

    def take(self, n: int | None = None) -> list[Call]:
        with self._lock:
            self._advance()
            room = self.limit - len(self._taken)
            count = max(0, min(len(self._waiting), room if n is None else n, room))
            calls = [self._waiting.popleft() for _ in range(count)]
            self._taken.update(dict.fromkeys(calls, self._share))
        return calls

    def resolve(self, results: Sequence[tuple[Call, Any]]) -> None:
        with self._lock:
            self._advance()
            timed = []
            for call, result in results:
                since = self._taken.pop(call, None)
                timed.append((call, result, None if since is None else self._share - since))
        try:
            self._scheduler.store_and_deliver(timed)
        except Exception as error:  # they are no longer among those taken: nobody else would fail them
            lost = as_call_error(self.model, error)
            self._scheduler.deliver([(call, lost) for call, _ in results])

    def reject(self, call: Call, error: Exception) -> None:
        with self._lock:
            self._advance()
            self._taken.pop(call, None)
        self._scheduler.deliver([(call, error)])


def as_call_error(model: Model, error: Exception) -> Exception:
    """Return one of our own errors as it is, and any other wrapped in one that names the model."""
    if isinstance(error, MocoError):
        return error
    wrapped = ModelCallError(f"{model.name}: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
