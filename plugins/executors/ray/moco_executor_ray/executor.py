"""The executor: runs as tasks of a cluster, in any order, done again where a machine was lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import attrs

from moco_core import ConfigError, Executor, JobConfig, option
from moco_core.errors import RunFailed
from moco_executor_ray.keeper import Keeper
from moco_executor_ray.working import Where, described, work
from moco_toolkit_ray import Connection, cause_of, connect, gone, nodes, out_of_memory

__all__ = ["Options", "RayExecutor"]

_log = logging.getLogger(__name__)

_LISTEN = 0.5  # seconds after which the keeper answers that there is no news
_LOOK = 10.0  # seconds without the end of a run after which it is seen whether the cluster is there, and has room
_GRACE = 30.0  # seconds that runs have to end as interrupted


@attrs.frozen(kw_only=True)
class Options:
    """Options of the executor."""

    address: str = option(
        "", help="HOST:PORT of the cluster, or auto; default: $RAY_ADDRESS, else one is started on this machine"
    )
    cpus: float | Literal["auto"] = option(
        "auto", gt=0, help="CPUs of a run; auto: 1, and none where its pool is ray, whose actors have their own"
    )
    gpus: float = option(0.0, ge=0, help="GPUs of a run")
    memory: float | None = option(
        None, gt=0, help="GiB of a node's memory that a run takes; default: it is not counted"
    )
    retries: int = option(2, ge=0, help="how often a run is done again whose process or machine was lost")


class RayExecutor(Executor[Options]):
    """The runs of a grid side by side on the machines of a Ray cluster, on one call cache."""

    Options = Options

    async def map(self, jobs: Sequence[JobConfig], run: Callable[[JobConfig], Awaitable[Any]]) -> AsyncIterator[Any]:
        """Yield what runs come to as they end. Raises ConfigError if no node can do one, RunFailed if some were lost."""
        connection = await asyncio.to_thread(connect, self.options.address)
        try:
            self._check(max((cpus_of(self.options, job) for job in jobs), default=0.0))
            grid = _Grid(self.options, connection, jobs, self.tell)
            try:
                async for result in grid.results():
                    yield result
            finally:
                await grid.end()
        finally:
            await asyncio.to_thread(connection.close)

    def _check(self, cpus: float) -> None:
        """Raise ConfigError if no node can ever do a run."""
        o, there = self.options, nodes()
        memory = (o.memory or 0) * 2**30
        if not any(n.cpus >= cpus and n.gpus >= o.gpus and n.memory >= memory for n in there):
            has = "; ".join(f"{n.name}: {n.cpus:g} cpus, {n.gpus:g} gpus, {n.memory / 2**30:.1f} GiB" for n in there)
            wants = f"{cpus:g} cpus, {o.gpus:g} gpus" + (f", {o.memory:g} GiB" if o.memory else "")
            raise ConfigError(f"executor: a run takes {wants}; no node has that ({has}); lower cpus, gpus or memory")


class _Grid:
    """The runs of one grid on the cluster."""

    def __init__(
        self, options: Options, connection: Connection, jobs: Sequence[JobConfig], tell: Callable[[str, Any], None]
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._options, self._connection, self._tell = options, connection, tell
        self._jobs = jobs
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        cache = jobs[0].cache if jobs else None
        self._keeper: Any = (
            ray.remote(Keeper)
            .options(num_cpus=0, max_concurrency=1000, scheduling_strategy=here)
            .remote(None if cache is None else str(Path(cache).resolve()))
        )
        out = Path(jobs[0].config.get("out", "runs") if jobs else "runs").resolve()
        out.mkdir(parents=True, exist_ok=True)
        self._probe = out / f".{uuid.uuid4().hex}"
        self._probe.touch()
        self._where = Where(folder=os.getcwd(), probe=str(self._probe))
        self._running: dict[asyncio.Future[Any], tuple[JobConfig, Any, int]] = {}
        # runs that take no CPU are bounded here: each is a process, and their actors wait for one another's room
        free = not all(cpus_of(options, job) for job in jobs)
        self._most = max(1, int(sum(node.cpus for node in nodes()))) if free else len(jobs)
        self._heard = 0
        self._gone = False
        self._listener = asyncio.create_task(self._listen())

    async def results(self) -> AsyncIterator[Any]:
        lost: list[str] = []
        waiting = deque(self._jobs)
        looked = time.monotonic()
        while waiting or self._running:
            while waiting and len(self._running) < self._most:
                self._send(waiting.popleft(), 0)
            done, _ = await asyncio.wait(self._running, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
            if self._listener.done():  # the keeper is gone
                await self._check()
                self._listener.result()
            if not done and time.monotonic() - looked >= _LOOK:
                looked = time.monotonic()
                await self._look()
            for future in done:
                job, _, tries = self._running.pop(future)
                error = future.exception()
                if error is None:
                    result = future.result()
                    if isinstance(result, Exception):
                        raise result
                    if result is not None:
                        await self._hear(0.0)
                        yield result
                    continue
                await self._check()
                cause = cause_of(error)
                if tries < self._options.retries:
                    _log.warning("%s is done again, what it has asked is kept: %s", described(job), cause)
                    self._send(job, tries + 1)
                else:
                    more = "; give each run more memory (executor option memory)" if out_of_memory(error) else ""
                    lost.append(f"{described(job)}: lost {tries + 1} times, the last time {cause}{more}")
        if lost:
            raise RunFailed("; ".join(lost) + "; all other runs are done, the same command does these again")

    def _send(self, job: JobConfig, tries: int) -> None:
        import ray

        o = self._options
        task = ray.remote(work).options(
            num_cpus=cpus_of(o, job),
            num_gpus=o.gpus,
            memory=None if o.memory is None else int(o.memory * 2**30),
            max_retries=0,
            name=described(job),
        )
        reference = task.remote(_at_home(job), self._keeper, self._where)
        future = asyncio.wrap_future(cast(Any, reference.future()))
        self._running[future] = (job, reference, tries)

    async def _look(self) -> None:
        import ray

        await self._check()
        if not self._heard:
            free = ray.available_resources()
            _log.warning(
                "waiting on the Ray cluster for room for the first of %d runs (%g cpus, %g gpus each); free there now: "
                "%g cpus, %g gpus",
                len(self._jobs),
                cpus_of(self._options, self._jobs[0]),
                self._options.gpus,
                free.get("CPU", 0.0),
                free.get("GPU", 0.0),
            )

    async def _check(self) -> None:
        """Raise PoolError if the cluster is not there any more; nothing is asked of it then, since Ray would wait for it."""
        if (end := await asyncio.to_thread(gone, self._connection.address)) is not None:
            self._gone = True
            raise end

    async def _listen(self) -> None:
        while True:
            await self._hear(_LISTEN)

    async def _hear(self, patience: float) -> None:
        """Hand on what runs have told."""
        first, told = await self._keeper.told.remote(self._heard, patience)
        for number, (hook, event) in enumerate(told, first):
            if number >= self._heard:  # who asked at the same time has told it
                self._heard = number + 1
                self._tell(hook, event)

    async def end(self) -> None:
        """Stop what is under way, and wait until the runs have said that they are interrupted."""
        import ray

        self._listener.cancel()
        if self._gone:
            self._probe.unlink(missing_ok=True)
            return
        with contextlib.suppress(Exception):
            if self._running:
                await self._keeper.stop.remote()
                for _, reference, _ in self._running.values():
                    ray.cancel(reference, force=False)
                _, left = await asyncio.wait(self._running, timeout=_GRACE)
                for future in left:
                    ray.cancel(self._running[future][1], force=True)
        for future in self._running:
            future.cancelled() or (future.done() and future.exception())
        with contextlib.suppress(Exception):
            await self._hear(0.0)
            ray.kill(self._keeper)
        self._probe.unlink(missing_ok=True)


def cpus_of(options: Options, job: JobConfig) -> float:
    """Return the CPUs that a run takes of its node."""
    pool = job.config["pool"]
    drives = (pool if isinstance(pool, str) else pool["name"]) == "ray"
    return options.cpus if options.cpus != "auto" else 0.0 if drives else 1.0


def _at_home(job: JobConfig) -> JobConfig:
    """Return a job whose paths hold wherever it is done."""
    cache = None if job.cache is None else Path(job.cache).resolve()
    return attrs.evolve(job, cache=cache, plugins=tuple(Path(p).resolve() for p in job.plugins))
