"""The scheduler: collects the calls of all coroutines, answers what is cached, and batches the rest per model.

A call waits until no coroutine can advance without an answer; then the waiting calls of one model go to its engine
together. While an engine serves a model, further calls of that model join it. Per device group one model is served at a
time: the one with the longest queue if its engine holds it ready, so that no few stragglers of one model keep all that
wait for another; otherwise the resident one as long as calls for it wait, then the longest queue: fewest swaps.

Whatever an engine, the cache or a callback does, every call ends: with its result, or with an error that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import attrs

from moco_core.errors import EngineOutOfMemory, ModelCallError, StoreError
from moco_core.models import Call, Engine, Model
from moco_core.runtime.cache import Cache, KeyParts, encode_result, fits, key_parts
from moco_core.runtime.claims import Claims
from moco_core.runtime.devices import DeviceGroup, Devices
from moco_core.runtime.ledger import Answered
from moco_core.runtime.memo import Memo
from moco_core.runtime.queues import UNLIMITED, Queue, as_call_error
from moco_core.runtime.starting import Starts
from moco_core.types import Generation

T = TypeVar("T")

_QUIET_PASSES = 2
"""Passes of the event loop without a new call after which all coroutines are taken to be waiting.

An answer needs one pass to wake its coroutine and, through nested tasks, a few more until the next call arrives. Too small
a number only makes a first batch smaller: later calls join it.
"""


@attrs.define(eq=False)
class _Pending:
    """A call on its way. ``parts`` is None for calls that are not stored; ``task`` submits it, once it is under way."""

    parts: KeyParts | None
    waiters: list[asyncio.Future[Answered]] = attrs.field(factory=list)
    task: asyncio.Task[Any] | None = None


class Scheduler:
    """Runs calls through the cache and the engines. Use it as an async context manager, in one event loop.

    ``engines`` are those that will be needed. They are started together, when the first call is not cached: what is wrong
    with one is known before another is asked. ``runtime`` is handed to every engine as it starts.
    """

    def __init__(self, cache: Cache, engines: Iterable[Engine] = (), runtime: Any = None) -> None:
        self.cache = cache
        self.closing = False
        self._claims = Claims(cache)
        self._arrivals: list[Call] = []
        self._pending: dict[Call, _Pending] = {}
        self._in_flight: dict[bytes, Call] = {}
        self._queues: dict[Model, Queue] = {}
        self._limits: weakref.WeakKeyDictionary[Model, int] = weakref.WeakKeyDictionary()
        self.devices = Devices(self._schedule_pass)
        self._resident: dict[DeviceGroup, Model] = {}
        self._gates: dict[Engine, asyncio.Semaphore] = {}
        self.starts = Starts(engines, runtime, self._fail_all)
        self.memo = Memo(cache)
        self._noted: set[str] = set()  # models whose makers are noted
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pass_scheduled = False
        self._watching = False
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
        tasks = [*self._tasks, *self.memo.tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._claims.release(self._in_flight)
        for waiter in [waiter for pending in self._pending.values() for waiter in pending.waiters]:
            waiter.cancel()
        await self.starts.close()
        if self._threads is not None:
            # serving threads see `cancelled` at their next step; wait for them so that no weight outlives the run
            await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)

    # ---------------------------------------------------------------- calling

    async def cached_call(self, call: Call) -> Answered:
        """Answer a call from the cache or its engine. Equal calls in flight share one answer."""
        parts = key_parts(call)
        key = call.key = parts.key()
        shared = self._in_flight.get(key)
        if shared is not None:
            value, _, seconds = await self._wait(shared)
            return Answered(value, True, seconds)
        self._arrive(call, parts)
        self._in_flight[key] = call
        return await self._wait(call)

    async def uncached_call(self, call: Call) -> Any:
        """Make a call that is not stored (a step of a session)."""
        self._arrive(call, None)
        return (await self._wait(call)).value

    async def _wait(self, call: Call) -> Answered:
        """Await a call's answer. A call that everybody stopped waiting for is not made, if its engine has not taken it."""
        pending = self._pending[call]
        mine: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        pending.waiters.append(mine)
        try:
            return await mine
        except asyncio.CancelledError:
            pending.waiters.remove(mine)
            if not pending.waiters and call in self._pending and not self.closing:
                self._withdraw(call, pending)
            raise

    async def in_thread(self, work: Callable[..., T], *given: Any) -> T:
        """Run blocking work in one of the threads that the end of the run waits for."""
        assert self._loop is not None and self._threads is not None, "the scheduler is used outside `async with`"
        return await self._loop.run_in_executor(self._threads, work, *given)

    def demand(self) -> dict[str, int]:
        """Return how many calls wait, by model name."""
        return {q.model.name: q.waiting for q in list(self._queues.values()) if q.waiting}

    def _arrive(self, call: Call, parts: KeyParts | None) -> None:
        if self._fatal is not None:
            raise self._fatal
        assert self._loop is not None, "the scheduler is used outside `async with`"
        self._pending[call] = _Pending(parts)
        self._arrivals.append(call)
        self._quiet = 0
        self._schedule_pass()

    def _withdraw(self, call: Call, pending: _Pending) -> None:
        queue = self._queues.get(call.model)
        if queue is not None and not queue.drop(call):
            return
        if pending.task is not None:
            if not call.model.engine.gives_up:
                return
            pending.task.cancel()
        self._settle(call, ModelCallError(f"{call.model.name}: nobody waits for the answer any more"))
        if call.key is not None:
            self._claims.release([call.key])

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
        try:
            if arrivals and self._admit(arrivals):
                # answers came from the cache: let their coroutines run before a model is chosen
                self._quiet = 0
                self._schedule_pass()
                return
            self._pump()
        except StoreError as error:
            self._fail_all(error)
        except Exception as error:  # a fault of ours: better an answer than silence
            self._settle_many([(call, as_call_error(call.model, error)) for call in self._pending])

    def _admit(self, arrivals: Sequence[Call]) -> bool:
        """Answer what is cached, leave what another process is making, queue the rest; return whether any was answered."""
        arrivals = [call for call in arrivals if call in self._pending]
        stored = {call.key: call for call in arrivals if call.key is not None}
        hits = self._deliver_stored(stored)
        missing = {key: call for key, call in stored.items() if key not in hits}
        done = hits | self._claims.claim(missing)
        if missing:
            self._watch()
        self._push(call for call in arrivals if call.key not in done)
        return bool(hits)

    def _deliver_stored(self, calls: Mapping[bytes, Call]) -> set[bytes]:
        """Settle those calls whose result is in the cache, in the form their kind has; return their keys."""
        found = self.cache.get_many(list(calls))
        hits = [key for key, call in calls.items() if key in found and fits(call.kind, found[key].value)]
        for key in hits:
            self._settle(calls[key], Answered(found[key].value, True, found[key].seconds))
        return set(hits)

    def _push(self, calls: Iterable[Call]) -> None:
        by_model: dict[Model, list[Call]] = {}
        for call in calls:
            by_model.setdefault(call.model, []).append(call)
        for model, group in by_model.items():
            if model not in self._queues:
                self._queues[model] = Queue(model, self, self._limits.get(model, UNLIMITED))
            self._queues[model].push(group)

    def _pump(self) -> None:
        """Start serving on every idle device group that has work, and forget the queues of models that have none."""
        groups: dict[DeviceGroup, list[Queue]] = {}
        for model, queue in list(self._queues.items()):
            group = (model.engine, model.device_group)
            if not queue.waiting:
                if not self.devices.serves(group, queue):
                    del self._queues[model]
            elif model.engine.batches_itself:
                self._submit_all(queue)
            else:
                groups.setdefault(group, []).append(queue)
        for group, queues in groups.items():
            if group in self.devices:
                continue
            chosen = max(queues, key=lambda q: q.waiting)
            resident = self._queues.get(self._resident.get(group, chosen.model))
            if resident in queues and resident is not None and not chosen.model.engine.ready(chosen.model):
                chosen = resident
            self._resident[group] = chosen.model
            self.devices.take(group, chosen)
            self._spawn(self._serve(group, chosen))

    async def _serve(self, group: DeviceGroup, queue: Queue) -> None:
        engine, model = group[0], queue.model
        error: Exception | None = None
        try:
            await self.starts.ready(engine)
            await self.in_thread(engine.serve, model, queue)
            if queue.serving and not self.closing:
                error = ModelCallError(f"{model.name}: the engine returned without answering {queue.serving} calls")
        except EngineOutOfMemory as caught:
            batch = max(queue.serving, 1)
            if batch == 1:
                error = caught
            else:
                queue.halve(batch)
                self._limits[model] = queue.limit
                queue.put_back()
        except Exception as caught:
            error = caught
        finally:
            self.devices.release(group)
        if error is not None:
            failed = queue.drain() or queue.withdraw()  # nothing taken: every waiting call would meet the same error
            self._settle_many([(call, as_call_error(model, error)) for call in failed])
        self._schedule_pass()

    def _submit_all(self, queue: Queue) -> None:
        engine = queue.model.engine
        if engine not in self._gates:
            self._gates[engine] = asyncio.Semaphore(engine.max_in_flight)
        for call in queue.withdraw():
            self._spawn(self._submit(engine, call))

    async def _submit(self, engine: Engine, call: Call) -> None:
        try:
            await self.starts.ready(engine)
            async with self._gates[engine]:
                if call not in self._pending:
                    return
                self._pending[call].task = asyncio.current_task()
                started = time.monotonic()
                result = await engine.submit(call)
                seconds: float | None = time.monotonic() - started
            if isinstance(result, Generation):
                seconds = result.meta.get("seconds", seconds)
            self.store_and_deliver([(call, result, seconds)])
        except Exception as error:
            self._settle_many([(call, as_call_error(call.model, error))])

    def _watch(self) -> None:
        if not self._watching and self.cache.path is not None:
            self._watching = True
            self._spawn(self._keep_watch())

    async def _keep_watch(self) -> None:
        try:
            await self._claims.watch(self._in_flight, self._deliver_stored, self._take_over)
        except Exception as error:
            self._fail_all(error)
        finally:
            self._watching = False

    def _take_over(self, calls: Iterable[Call]) -> None:
        self._push(calls)
        self._schedule_pass()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---------------------------------------------------------------- delivering (from any thread)

    def store_and_deliver(self, results: Sequence[tuple[Call, Any, float | None]]) -> None:
        """Store results in one transaction, then hand them out: what anybody has seen is on disk."""
        rows: list[tuple[bytes, KeyParts, bytes, float | None]] = []
        outcomes: list[tuple[Call, Any]] = []
        for call, result, seconds in results:
            outcome: Any = Answered(result, False, seconds)
            pending = self._pending.get(call)
            if call.key is not None and pending is not None and pending.parts is not None:
                try:
                    if not fits(call.kind, result):
                        raise TypeError(f"a {type(result).__name__} is no result of a {call.kind} call")
                    rows.append((call.key, pending.parts, encode_result(result), seconds))
                except Exception as error:
                    outcome = ModelCallError(f"{call.model.name}: its engine returned what cannot be stored: {error}")
            outcomes.append((call, outcome))
        try:
            first = self.cache.put_many(rows)
            self._note_makers(call.model for call, _, _ in results)
        except StoreError as error:
            self._from_thread(self._fail_all, error)
        except Exception as error:
            self.deliver([(call, as_call_error(call.model, error)) for call, _ in outcomes])
        else:
            if first:  # another process was quicker: what it stored is what everybody sees
                for i, (call, _, seconds) in enumerate(results):
                    if call.key in first:
                        outcomes[i] = (call, Answered(first[call.key].value, False, seconds))
            self.deliver(outcomes)

    def _note_makers(self, models: Iterable[Model]) -> None:
        """Note the versions of recipes whose models answered for the first time."""
        derived = {m.fingerprint: m.recipe for m in models if m.recipe is not None and m.fingerprint not in self._noted}
        self._noted.update(derived)
        if made := {f: r.made_by for f, r in derived.items() if hasattr(r, "made_by")}:
            self.cache.note_makers(made)

    def deliver(self, outcomes: Sequence[tuple[Call, Any]]) -> None:
        self._from_thread(self._settle_many, list(outcomes))

    def _from_thread(self, callback: Callable[[Any], None], argument: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run was stopped
            self._loop.call_soon_threadsafe(callback, argument)

    def _settle_many(self, outcomes: Sequence[tuple[Call, Any]]) -> None:
        failed = [call.key for call, outcome in outcomes if isinstance(outcome, Exception) and call.key is not None]
        for call, outcome in outcomes:
            self._settle(call, outcome)
        self._claims.release(failed)
        self._quiet = 0
        self._schedule_pass()

    def _settle(self, call: Call, outcome: Any) -> None:
        pending = self._pending.pop(call, None)
        if call.key is not None and self._in_flight.get(call.key) is call:
            del self._in_flight[call.key]
            self._claims.elsewhere.pop(call.key, None)
        for waiter in pending.waiters if pending is not None else ():
            if waiter.done():
                continue
            if isinstance(outcome, Exception):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)

    def _fail_all(self, error: Exception) -> None:
        """The store or a pool is unusable: fail everything that waits, and everything that comes."""
        self._fatal = error
        for call in list(self._pending):
            self._settle(call, error)
