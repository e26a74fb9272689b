"""The runtime: one cache, one scheduler, one store of artifacts and the open engines, for as long as somebody needs them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moco_core.data import Metric
from moco_core.models import Engine
from moco_core.runtime.artifacts import Artifacts
from moco_core.runtime.cache import Cache
from moco_core.runtime.contexts import RunState
from moco_core.runtime.scheduler import Scheduler


def artifacts_of(cache: Path) -> Path:
    """Return where the artifacts that belong to a call cache lie: beside it."""
    return cache.with_name(f"{cache.stem}.artifacts")


class Runtime:
    """Everything that answers calls. Use it as an async context manager, in one event loop; runs, asking and serving share it.

    ``cache`` is the path of the call cache, None for one in memory, or an open cache, which stays open. ``engines`` are
    those that will be needed: they start together when the first of them is called, and are closed at the end.
    """

    def __init__(self, cache: Cache | Path | None, engines: Iterable[Engine] = ()) -> None:
        self._own = not isinstance(cache, Cache)
        self.cache = cache if isinstance(cache, Cache) else Cache(cache)
        beside = None if self.cache.path is None else artifacts_of(self.cache.path)
        self.artifacts = Artifacts(None, beside) if self.cache.read_only else Artifacts(beside)
        self.scheduler = Scheduler(self.cache, engines, self)

    async def __aenter__(self) -> Runtime:
        await self.scheduler.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self.scheduler.__aexit__(*exc)
        finally:
            self.artifacts.close()
            if self._own:
                self.cache.close()

    def state(self, metric: Metric[Any], **settings: Any) -> RunState:
        """Return what the contexts of one run share; ``settings`` are the other fields of :class:`RunState`."""
        return RunState(scheduler=self.scheduler, artifacts=self.artifacts, metric=metric, **settings)
