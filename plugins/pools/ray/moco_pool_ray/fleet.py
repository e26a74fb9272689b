"""The actors of one pool: their room on the cluster, taken together, and each of them as long as it lives."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from moco_core import CapabilityError, ModelCallError, PoolError
from moco_pool_ray.host import Host, Spec
from moco_pool_ray.placing import Seat, needs_of
from moco_toolkit_ray import Connection, cause_of, connect, gone, out_of_memory

__all__ = ["Actor", "Fleet", "Lost"]

_log = logging.getLogger(__name__)

_LOOK = 0.5  # seconds between two looks at whether there is room, or the run has ended
_PATIENT = 5.0  # seconds to wait in silence
_START = 30.0  # likewise, for a process to start in a place that is held for it
_AGAIN = 60.0  # seconds after which it is said again what is waited for
_CALLS = 1000  # methods of an actor that may be under way at once: most of them wait


class Lost(Exception):
    """An actor is gone. ``memory`` says that its machine ran out of it."""

    def __init__(self, actor: Actor, cause: BaseException) -> None:
        super().__init__(cause_of(cause))
        self.actor = actor
        self.memory = out_of_memory(cause)


class Actor:
    """A living actor. ``known`` are the derived models that it has been told of."""

    def __init__(self, seat: Seat, handle: Any) -> None:
        self.seat = seat
        self.known: set[str] = set()
        self.node = ""
        self._handle = handle

    def send(self, method: str, *given: Any) -> Any:
        """Ask for something and return Ray's reference to the answer."""
        return getattr(self._handle, method).remote(*given)

    def get(self, reference: Any) -> Any:
        """Return an answer that is there or will be. Raises Lost, or the error that is the answer."""
        import ray

        try:
            value = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise ModelCallError(f"actor {self.seat.number}: {type(error.cause).__name__}: {error.cause}") from None
        except ray.exceptions.RayError as error:
            raise Lost(self, error) from None
        if isinstance(value, Exception):
            raise value
        return value

    def call(self, method: str, *given: Any) -> Any:
        return self.get(self.send(method, *given))

    def end(self) -> None:
        import ray

        with contextlib.suppress(Exception):
            ray.kill(self._handle)


class Fleet:
    """Starts the actors of a pool and replaces those that die. Thread-safe.

    ``specs`` are what each seat's actor opens. The room of all is taken at once, so that two runs cannot each hold half of
    what they need.
    """

    def __init__(
        self, address: str, seats: Sequence[Seat], specs: Sequence[Spec], *, spread: bool, restarts: int
    ) -> None:
        self.seats, self.specs = tuple(seats), tuple(specs)
        self.restarts = restarts
        self._address = address
        self._spread = spread
        self._lock = threading.RLock()
        self._locks = [threading.Lock() for _ in seats]
        self._connection: Connection | None = None
        self._group: Any = None
        self._actors: dict[int, Actor] = {}
        self._deaths = [0 for _ in seats]
        self._users: set[int] = set()
        self._gone = False

    @property
    def address(self) -> str:
        return self._connection.address if self._connection is not None else self._address

    def gone(self) -> PoolError | None:
        """Return the error of a cluster that is not there any more; nothing is asked of it then: Ray would wait for it."""
        error = gone(self.address)
        self._gone |= error is not None
        return error

    def connect(self) -> None:
        """Connect to the cluster. Raises ConfigError."""
        with self._lock:
            if self._connection is None:
                self._connection = connect(self._address)

    def actor(self, number: int, stopped: Callable[[], bool] = lambda: False) -> Actor:
        """Return the actor of a seat, started if there is none; wait for room as long as not ``stopped``.

        Raises PoolError, or ModelCallError once it has died too often.
        """
        with self._locks[number]:
            found = self._actors.get(number)
            if found is None:
                self._users.add(number)
                self.connect()
                self._take_room(lambda: stopped() or number not in self._users)
                found = self._start(number, lambda: stopped() or number not in self._users)
                self._actors[number] = found
            return found

    def _take_room(self, stopped: Callable[[], bool]) -> None:
        import ray
        from ray.util import placement_group

        with self._lock:
            if self._group is None:
                strategy = "SPREAD" if self._spread else "PACK"
                self._group = placement_group([seat.bundle for seat in self.seats], strategy=strategy)
            group = self._group
        waited = _Waiting(self, "room for " + "; ".join(_said(seat) for seat in self.seats))
        ready = group.ready()  # its own wait takes whole seconds: less would ask again and again
        while not ray.wait([ready], timeout=_LOOK)[0]:
            waited.look(stopped)

    def _start(self, number: int, stopped: Callable[[], bool]) -> Actor:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        seat = self.seats[number]
        handle = (
            ray.remote(Host)
            .options(
                num_cpus=seat.cpus,
                num_gpus=seat.gpus,
                memory=seat.memory or None,
                resources=dict(seat.others) or None,
                max_restarts=0,
                max_concurrency=_CALLS,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, number),
            )
            .remote()
        )
        actor = Actor(seat, handle)
        opened = actor.send("open", self.specs[number])
        waited = _Waiting(self, f"the actor of {_said(seat)} to start", patience=_START)
        while not ray.wait([opened], timeout=_LOOK)[0]:
            waited.look(stopped)
        try:
            actor.get(opened)
        except Lost as lost:
            self.bury(lost)
            return self._start(number, stopped)
        except BaseException:
            actor.end()
            raise
        return actor

    def bury(self, lost: Lost) -> None:
        """Note that an actor died. Raises PoolError if the cluster is gone, ModelCallError if it died too often."""
        number = lost.actor.seat.number
        if (error := self.gone()) is not None:
            raise error
        with self._lock:
            if self._actors.get(number) is lost.actor:
                del self._actors[number]
            lost.actor.end()
            self._deaths[number] += 1
            count = self._deaths[number]
        models = ", ".join(lost.actor.seat.models)
        if count > self.restarts:
            self._deaths[number] = 0
            raise ModelCallError(f"the Ray actor of {models} died {count} times in a row: {lost}")
        _log.warning(
            "the Ray actor of %s is gone: %s; starting it again, what it left unanswered is asked again", models, lost
        )

    def answered(self, number: int) -> None:
        """Note that an actor does its work."""
        self._deaths[number] = 0

    def release(self, number: int) -> None:
        """End the actor of a seat, and leave the cluster with the last one."""
        with self._lock:
            self._users.discard(number)
            actor = self._actors.pop(number, None)
            if actor is not None and not self._gone:
                actor.end()
            if self._users:
                return
            group, self._group = self._group, None
            if group is not None and not self._gone:
                from ray.util import remove_placement_group

                with contextlib.suppress(Exception):
                    remove_placement_group(group)
            connection, self._connection = self._connection, None
            self._gone = False
        if connection is not None:
            connection.close()


def _said(seat: Seat) -> str:
    needs = ", ".join(f"{value:g} {name.replace('memory_gib', 'GiB')}" for name, value in needs_of(seat).items())
    return f"{', '.join(seat.models)} ({needs})"


class _Waiting:
    """Waiting that says what it is for, and ends with the run or the cluster."""

    def __init__(self, fleet: Fleet, what: str, patience: float = _PATIENT) -> None:
        self._fleet, self._what = fleet, what
        self._since = time.monotonic()
        self._next = patience

    def look(self, stopped: Callable[[], bool]) -> None:
        """Raises CapabilityError if nobody waits any more, PoolError if the cluster is gone."""
        if stopped():
            raise CapabilityError("the run was stopped while it waited for the cluster")
        if (waited := time.monotonic() - self._since) < self._next:
            return
        self._next = waited + _AGAIN
        if (error := self._fleet.gone()) is not None:
            raise error
        _log.warning("waiting on the Ray cluster for %s; free there now: %s", self._what, _free())


def _free() -> str:
    import ray

    has = ray.available_resources()
    memory = has.get("memory", 0.0) / 2**30
    return f"{has.get('CPU', 0.0):g} cpus, {has.get('GPU', 0.0):g} gpus, {memory:.1f} GiB"
