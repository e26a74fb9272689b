"""The scheduler: collects the calls of all coroutines, answers what is cached, and batches the rest per model.

A call waits until no coroutine can advance without an answer; then the waiting calls of one model go to its engine
together. While an engine serves a model, further calls of that model join it. Per lane (a device group) one model is
served at a time: the one with the longest queue if its engine holds it ready, so that no few stragglers of one model keep
all that wait for another; otherwise the resident one as long as calls for it wait, then the longest queue: fewest swaps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from moco_core.errors import EngineOutOfMemory, MocoError, ModelCallError, PoolError, StoreError
from moco_core.models import Call, Engine, Model
from moco_core.runtime.cache import Cache, KeyParts, key_parts
from moco_core.runtime.queues import UNLIMITED, Queue
from moco_core.types import canonical, digest

__all__ = ["Scheduler"]

_QUIET_PASSES = 2
"""Passes of the event loop without a new call after which all coroutines are taken to be waiting.

An answer needs one pass to wake its coroutine and, through nested tasks, a few more until the next call arrives. Too small
a number only makes a first batch smaller: later calls join it.
"""


class Scheduler:
    """Runs calls through the cache and the engines. Use it as an async context manager, in one event loop.

    ``engines`` are those that will be needed. They are started together, when the first call is not cached: what is wrong
    with one is known before another is asked.
    """

    def __init__(self, cache: Cache, engines: Iterable[Engine] = ()) -> None:
        self.cache = cache
        self._expected = tuple(engines)
        self.closing = False
        self.swaps = 0
        self._arrivals: list[tuple[Call, KeyParts | None]] = []
        self._in_flight: dict[bytes, asyncio.Future[Any]] = {}
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._parts: dict[int, KeyParts] = {}
        self._queues: dict[int, Queue] = {}
        self._lane_busy: dict[tuple[int, str], Queue | None] = {}
        self._resident: dict[tuple[int, str], Queue] = {}
        self._gates: dict[int, asyncio.Semaphore] = {}
        self._started: dict[int, Engine] = {}
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._memo: dict[bytes, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pass_scheduled = False
        self._quiet = 0
        self._fatal: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Scheduler:
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(max_workers=64, thread_name_prefix="moco-engine")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.closing = True
        tasks = [*self._tasks, *self._memo.values(), *self._starting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for future in list(self._futures.values()):
            future.cancel()
        for engine in self._started.values():
            with contextlib.suppress(Exception):
                await engine.close()
        if self._threads is not None:
            # serving threads see `cancelled` at their next step; wait for them so that no weight outlives the run
            await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)

    # ---------------------------------------------------------------- calling

    async def cached_call(self, call: Call) -> tuple[Any, bool]:
        """Answer a call from the cache or its engine; return (result, came from the cache).

        Equal calls in flight share one answer.
        """
        parts = key_parts(call)
        key = call.key = parts.key()
        shared = self._in_flight.get(key)
        if shared is not None:
            return (await asyncio.shield(shared)).value, True
        future = self._new_future(call)
        self._in_flight[key] = future
        self._parts[id(call)] = parts
        self._arrive(call, parts)
        result = await asyncio.shield(future)
        return result.value, result.hit

    async def uncached_call(self, call: Call) -> Any:
        """Make a call that is not stored (a step of a session)."""
        future = self._new_future(call)
        self._arrive(call, None)
        result = await future
        return result.value

    async def once(self, what: Mapping[str, Any], compute: Callable[[], Awaitable[Any]]) -> Any:
        """Memoise a computation with a JSON result under the digest of ``what``."""
        parts = KeyParts(
            model="", kind="once", input=digest(what)[:32], params=canonical(dict(what).get("kind", "")), seed=""
        )
        key = parts.key()
        found = self.cache.get_many([key])
        if key in found:
            return found[key]
        running = self._memo.get(key)
        if running is None:

            async def work() -> Any:
                value = await compute()
                self.cache.put_many([(key, parts, value)])
                return value

            running = asyncio.create_task(work())
            self._memo[key] = running
            running.add_done_callback(lambda _: self._memo.pop(key, None))
        return await asyncio.shield(running)

    def demand(self) -> dict[str, int]:
        """How many calls wait per model name."""
        return {q.model.name: q.waiting for q in list(self._queues.values()) if q.waiting}

    def _new_future(self, call: Call) -> asyncio.Future[Any]:
        if self._fatal is not None:
            raise self._fatal
        assert self._loop is not None, "the scheduler is used outside `async with`"
        future: asyncio.Future[Any] = self._loop.create_future()
        # the caller may be cancelled while the answer is on its way: an unread error is not worth a warning then
        future.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._futures[id(call)] = future
        return future

    def _arrive(self, call: Call, parts: KeyParts | None) -> None:
        self._arrivals.append((call, parts))
        self._quiet = 0
        self._schedule_pass()

    def _schedule_pass(self) -> None:
        if not self._pass_scheduled:
            self._pass_scheduled = True
            assert self._loop is not None
            self._loop.call_soon(self._pass)

    # ---------------------------------------------------------------- dispatching

    def _pass(self) -> None:
        """Run once per pass of the event loop while calls arrive; act when it has become quiet."""
        self._pass_scheduled = False
        if self.closing:
            return
        if self._quiet < _QUIET_PASSES:
            self._quiet += 1
            self._schedule_pass()
            return
        arrivals, self._arrivals = self._arrivals, []
        if arrivals and self._admit(arrivals):
            # answers came from the cache: let their coroutines run before a model is chosen
            self._quiet = 0
            self._schedule_pass()
            return
        self._pump()

    def _admit(self, arrivals: list[tuple[Call, KeyParts | None]]) -> bool:
        """Answer what is cached, queue the rest; return whether anything was answered."""
        keys = [c.key for c, p in arrivals if p is not None and c.key is not None]
        try:
            found = self.cache.get_many(keys)
        except StoreError as error:
            self._fail_all(error)
            return True
        hit = False
        misses: dict[int, list[Call]] = {}
        for call, parts in arrivals:
            if parts is not None and call.key in found:
                hit = True
                self._settle(call, _Result(found[call.key], True))
            else:
                misses.setdefault(id(call.model), []).append(call)
        for calls in misses.values():
            self._queue_of(calls[0].model).push(calls)
        return hit

    def _queue_of(self, model: Model) -> Queue:
        queue = self._queues.get(id(model))
        if queue is None:
            queue = self._queues[id(model)] = Queue(model, self)
        return queue

    def _pump(self) -> None:
        """Start serving on every idle lane that has work."""
        lanes: dict[tuple[int, str], list[Queue]] = {}
        for queue in self._queues.values():
            if not queue.waiting:
                continue
            if queue.model.engine.batches_itself:
                self._submit_all(queue)
            else:
                lanes.setdefault((id(queue.model.engine), queue.model.lane), []).append(queue)
        for lane, queues in lanes.items():
            if self._lane_busy.get(lane) is None:
                resident = self._resident.get(lane)
                chosen = max(queues, key=lambda q: q.waiting)
                if resident in queues and not chosen.model.engine.ready(chosen.model):
                    chosen = resident
                if resident is not chosen:
                    self.swaps += resident is not None
                    self._resident[lane] = chosen
                self._lane_busy[lane] = chosen
                self._spawn(self._serve(lane, chosen))

    async def _serve(self, lane: tuple[int, str], queue: Queue) -> None:
        assert self._loop is not None and self._threads is not None
        engine = queue.model.engine
        try:
            await self._start(engine)
            await self._loop.run_in_executor(self._threads, engine.serve, queue.model, queue)
            error: Exception | None = None
            if queue.taken and not self.closing:
                error = ModelCallError(
                    f"{queue.model.name}: the engine returned without answering {len(queue.taken)} calls"
                )
        except EngineOutOfMemory as caught:
            error = None
            batch = max(len(queue.taken), 1)
            if batch == 1:
                error = caught
            else:
                queue.halve(batch)
                queue.put_back()
        except Exception as caught:
            error = caught
        if error is not None:
            taken = list(queue.taken.values())
            queue.taken.clear()
            if not taken:  # nothing was taken: every waiting call would meet the same error
                taken = queue.take(UNLIMITED)
                queue.taken.clear()
            self.deliver([(call, _as_call_error(queue.model, error)) for call in taken])
        self._lane_busy[lane] = None
        self._schedule_pass()

    def _submit_all(self, queue: Queue) -> None:
        engine = queue.model.engine
        gate = self._gates.get(id(engine))
        if gate is None:
            gate = self._gates[id(engine)] = asyncio.Semaphore(engine.max_in_flight)
        for call in queue.take(UNLIMITED):
            queue.taken.pop(id(call), None)
            self._spawn(self._submit(engine, call, gate))

    async def _submit(self, engine: Engine, call: Call, gate: asyncio.Semaphore) -> None:
        try:
            await self._start(engine)
            async with gate:
                result = await engine.submit(call)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.deliver([(call, _as_call_error(call.model, error))])
        else:
            self.store_and_deliver([(call, result)])

    async def _start(self, engine: Engine) -> None:
        """Start an engine once, and with it all that are expected; whoever comes meanwhile waits, and meets its error."""
        wanted = {id(e): e for e in (*self._expected, engine)}
        for key, each in wanted.items():
            if key not in self._started:
                self._started[key] = each
                self._starting[key] = asyncio.create_task(each.start())
        tasks = {key: self._starting[key] for key in wanted}
        if not all(task.done() for task in tasks.values()):
            await asyncio.wait(tasks.values())
        errors = {key: error for key, task in tasks.items() if (error := task.exception()) is not None}
        for error in errors.values():
            if isinstance(error, PoolError):
                self._fail_all(error)
                raise error
        if id(engine) in errors:
            raise errors[id(engine)]

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---------------------------------------------------------------- delivering (from any thread)

    def store_and_deliver(self, results: Sequence[tuple[Call, Any]]) -> None:
        """Store results in one transaction, then hand them out: what anybody has seen is on disk."""
        rows = [(c.key, self._parts[id(c)], r) for c, r in results if c.key is not None and id(c) in self._parts]
        try:
            self.cache.put_many(rows)
        except StoreError as error:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._fail_all, error)
            return
        self.deliver([(c, _Result(r, False)) for c, r in results])

    def deliver(self, outcomes: Sequence[tuple[Call, Any]]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run was stopped
            self._loop.call_soon_threadsafe(self._settle_many, list(outcomes))

    def _settle_many(self, outcomes: list[tuple[Call, Any]]) -> None:
        for call, outcome in outcomes:
            self._settle(call, outcome)
        self._quiet = 0
        self._schedule_pass()

    def _settle(self, call: Call, outcome: Any) -> None:
        self._parts.pop(id(call), None)
        if call.key is not None:
            self._in_flight.pop(call.key, None)
        future = self._futures.pop(id(call), None)
        if future is None or future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _fail_all(self, error: Exception) -> None:
        """The store or a pool is unusable: fail everything that waits, and everything that comes."""
        self._fatal = error
        for call_id, future in list(self._futures.items()):
            if not future.done():
                future.set_exception(error)
            self._futures.pop(call_id, None)
        self._in_flight.clear()


class _Result:
    __slots__ = ("hit", "value")

    def __init__(self, value: Any, hit: bool) -> None:
        self.value = value
        self.hit = hit


def _as_call_error(model: Model, error: Exception) -> Exception:
    if isinstance(error, MocoError):
        return error
    wrapped = ModelCallError(f"{model.name}: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
