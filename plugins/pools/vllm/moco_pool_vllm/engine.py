"""The engine: calls become requests of vLLM's asynchronous engine, which batches them itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from moco_core.errors import CapabilityError, ConfigError, MocoError, ModelCallError
from moco_core.models import CAPABILITIES, Call, Engine
from moco_pool_vllm.options import Options
from moco_pool_vllm.placement import Base, Placement
from moco_pool_vllm.switching import EngineSwitcher

if TYPE_CHECKING:
    from moco_pool_vllm.handle import EngineHandle

__all__ = ["VLLMEngine"]


class VLLMEngine(Engine):
    """One vLLM engine per base checkpoint, each with a worker process of its own, opened when its first call arrives.

    ``loads`` counts how often an engine was opened, ``bases`` holds what there is to open.
    """

    batches_itself: ClassVar[bool] = True
    # every waiting call is let in, so that whose turn comes next is decided with all of them in view; how many a model
    # works on at once is bounded per handle
    max_in_flight: int = 1 << 20

    def __init__(self, options: Options) -> None:
        self.options = options
        self.bases: Mapping[str, Base] = {}
        self.loads = 0
        self._handles: dict[str, EngineHandle] = {}
        self._opening: dict[str, asyncio.Task[EngineHandle]] = {}
        self._switchers: dict[str, EngineSwitcher] = {}
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._failed: dict[str, ConfigError] = {}
        self._numbers = itertools.count()

    async def close(self) -> None:
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        self._opening.clear()
        self._failed.clear()
        self._switchers.clear()
        self._gates.clear()
        handles, self._handles = list(self._handles.values()), {}
        for handle in handles:
            await handle.close()

    async def submit(self, call: Call) -> Any:
        """Answer one call. Raises ModelCallError; ConfigError if the model cannot be opened."""
        if call.kind not in call.model.capabilities:
            raise CapabilityError(
                f"model {call.model.name!r} cannot {CAPABILITIES.get(call.kind, call.kind)} on vLLM (capability {call.kind!r})"
            )
        key: str = call.model.info["base"]
        place: Placement = call.model.info["place"]
        async with self._turn(key, place):
            gate = self._gates.get(key)
            if gate is None:  # twice what is decoded together: vLLM always has the next requests at hand
                gate = self._gates[key] = asyncio.Semaphore(2 * self.options.max_num_seqs)
            async with gate:
                handle = await self._open(key, place)  # only now: the one before may have died meanwhile
                try:
                    return await handle.answer(call, f"moco-{next(self._numbers)}")
                except (MocoError, asyncio.CancelledError):
                    raise
                except Exception as error:
                    # calls hear of a death before the engine calls itself dead
                    if handle.dead or type(error).__name__ == "EngineDeadError":
                        await self._bury(key, handle)
                    text = " ".join(str(error).split()) or type(error).__name__
                    raise ModelCallError(f"{call.model.name}: vLLM: {text[:300]}") from error

    @asynccontextmanager
    async def _turn(self, key: str, place: Placement) -> AsyncIterator[None]:
        """Hold the turn of an engine during one call, where engines take turns."""
        if not place.sliced:
            yield
            return
        switcher = self._switchers.get(place.device_group)
        if switcher is None:

            async def change(old: str | None, new: str) -> None:
                if old is not None:
                    await self._leave(old)
                await self._open(new, place)

            switcher = self._switchers[place.device_group] = EngineSwitcher(change)
        async with switcher.enter(key):
            yield

    async def _open(self, key: str, place: Placement) -> EngineHandle:
        """Return an engine, opened and awake."""
        handle = self._handles.get(key)
        if handle is not None and handle.dead:  # while nobody looked
            await self._bury(key, handle)
        elif handle is not None:
            await handle.wake()
            return handle
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(self._load(key, place))
        try:
            return await asyncio.shield(task)
        finally:
            if task.done():
                self._opening.pop(key, None)

    async def _load(self, key: str, place: Placement) -> EngineHandle:
        from moco_pool_vllm.handle import EngineHandle

        if key in self._failed:  # the next call would wait minutes to meet the same
            raise self._failed[key]
        try:
            handle = await EngineHandle.open(self.bases[key], place, self.options)
        except ConfigError as error:
            self._failed[key] = error
            raise
        self.loads += 1
        self._handles[key] = handle
        return handle

    async def _bury(self, key: str, handle: EngineHandle) -> None:
        """Forget an engine whose process has died; another call may have opened a new one by now."""
        if self._handles.get(key) is handle:
            del self._handles[key]
        await handle.close()

    async def _leave(self, key: str) -> None:
        """Free the memory of an engine: its process ends, or its weights move to RAM."""
        handle = self._handles.get(key)
        if handle is None:
            return
        if self.options.swap == "sleep":
            await handle.sleep()
            return
        self._handles.pop(key)
        with contextlib.suppress(Exception):
            await handle.close()
