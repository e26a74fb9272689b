"""The calls of one model that a run has sent to an actor: what the engine there takes them from."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moco_core import Call, EngineOutOfMemory, MocoError, Model, ModelCallError

__all__ = ["PLAIN", "Outcome", "Session", "as_error"]

PLAIN = ("generate", "score", "embed", "reward")
"""Kinds of calls whose input and results are plain data."""

Outcome = tuple[int, bool, Any]
"""The number of a call, whether it is a private one, and its result or the Exception that it failed with."""


def as_error(model: str, error: Exception) -> Exception:
    """Return an error that can travel: one of ours as it is, any other as a line that names the model."""
    if isinstance(error, MocoError):
        return error
    return ModelCallError(f"{model}: {type(error).__name__}: {error}")


class Session:
    """An :class:`~moco_core.models.Inbox` that is filled from afar.

    Outcomes are numbered as they come and kept until the other side says that it has them, so that asking for them again
    loses none; calls are numbered by the other side, and one that was sent twice is taken once.
    """

    def __init__(self, model: Model, loop: asyncio.AbstractEventLoop) -> None:
        self.model = model
        self.limit = 1 << 30
        self.demand: Mapping[str, int] = {}
        self.cancelled = False
        self.problem: EngineOutOfMemory | None = None
        self._loop = loop
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        self._waiting: collections.deque[Call] = collections.deque()
        self._numbers: dict[Call, int] = {}
        self._taken: dict[Call, None] = {}
        self._outcomes: list[Outcome] = []
        self._known = 0  # outcomes that the other side has
        self._told: dict[int, str] = {}  # how far replies are that somebody reads along, since they were last fetched
        self._newest = -1
        self._running = False

    # ---- the run's side

    def add(self, calls: Sequence[tuple[int, Call]]) -> bool:
        """Take in calls; return whether somebody has to begin serving them."""
        with self._lock:
            for number, call in calls:
                if number > self._newest:
                    self._newest = number
                    self._numbers[call] = number
                    self._waiting.append(call)
            begin = bool(self._waiting) and not self._running
            self._running |= begin
        return begin

    async def outcomes(self, since: int) -> list[Outcome]:
        """Return the outcomes from number ``since`` on, once there are any or something is told; none if it has ended."""
        while True:
            self._news.clear()
            with self._lock:
                if since > self._known:
                    del self._outcomes[: since - self._known]
                    self._known = since
                if self._outcomes or self._told or self.problem or self.cancelled:
                    return list(self._outcomes)
            await self._news.wait()

    def teller(self, number: int) -> Callable[[str], None]:
        """Return what is told how far the reply to a call is."""

        def tell(text: str) -> None:
            with self._lock:
                self._told[number] = text
            self._wake()

        return tell

    def told(self) -> dict[int, str]:
        """Return what was told since the last time, by the numbers of calls."""
        with self._lock:
            told, self._told = self._told, {}
        return told

    def end(self) -> None:
        self.cancelled = True
        self._wake()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    # ---- the serving side

    def goes_on(self) -> bool:
        """Return whether calls wait; if not, whoever serves has stopped."""
        with self._lock:
            self._running = bool(self._waiting) and not self.cancelled and self.problem is None
            return self._running

    def fail(self, error: EngineOutOfMemory) -> None:
        """End the session: what was not answered is asked again, by fewer calls at once."""
        self.problem = error
        self._wake()

    def refuse(self, error: Exception) -> None:
        """Fail what was taken and not answered; if nothing was, all that waits: it would meet the same error."""
        with self._lock:
            calls = list(self._taken) or list(self._waiting)
            if not self._taken:
                self._waiting.clear()
        for call in calls:
            self.reject(call, error)

    @property
    def taken(self) -> int:
        return len(self._taken)

    # ---- Inbox

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, n: int | None = None) -> list[Call]:
        with self._lock:
            room = self.limit - len(self._taken)
            count = max(0, min(len(self._waiting), room if n is None else n, room))
            calls = [self._waiting.popleft() for _ in range(count)]
            self._taken |= dict.fromkeys(calls)
        return calls

    def resolve(self, results: Sequence[tuple[Call, Any]]) -> None:
        with self._lock:
            for call, result in results:
                self._taken.pop(call, None)
                if (number := self._numbers.pop(call, None)) is not None:
                    self._outcomes.append((number, call.kind not in PLAIN, result))
        self._wake()

    def reject(self, call: Call, error: Exception) -> None:
        self.resolve([(call, as_error(self.model.name, error))])
