"""The executor that is used where none is named: several runs at once, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from moco_core.executors import Executor, JobConfig, R
from moco_core.options import NoOptions


class InProcess(Executor[NoOptions]):
    """Does up to ``parallel`` runs at once. They share the scheduler: while one waits for its model, another's is busy."""

    def __init__(self, parallel: int) -> None:
        super().__init__(NoOptions())
        self.parallel = parallel

    async def map(self, jobs: Sequence[JobConfig], run: Callable[[JobConfig], Awaitable[R]]) -> AsyncIterator[R]:
        """Start the jobs in their order and yield each as it ends."""
        waiting = list(reversed(jobs))
        running: dict[asyncio.Future[R], int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.parallel:
                    job = waiting.pop()
                    running[asyncio.ensure_future(run(job))] = job.position
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=running.__getitem__):
                    yield task.result()
                    del running[task]
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
