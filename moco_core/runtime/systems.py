"""A fitted system on an open runtime: asked question by question, with its engines loaded once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.context import Context
from moco_core.data import Metric
from moco_core.errors import CapabilityError, ConfigError, DatasetError, PoolError, RunFailed
from moco_core.methods import Method, System
from moco_core.models import Engine, Pool
from moco_core.runtime.ledger import Ledger
from moco_core.runtime.runtime import Runtime
from moco_core.types import CallRecord, Question, Reply, Sampling


@attrs.frozen(kw_only=True)
class Asked:
    """The answer to one question and every call that led to it."""

    reply: Reply
    calls: tuple[CallRecord, ...]

    @property
    def text(self) -> str:
        return self.reply.text


@attrs.frozen(kw_only=True)
class SystemParts:
    """What a system is opened from. ``make`` fits or restores it, given a context of the phase ``fit``."""

    method: Method[Any]
    pool: Pool
    metric: Metric[Any]
    make: Callable[[Context], Awaitable[System]]
    sampling: Sampling = attrs.field(factory=Sampling)
    seed: int = 0
    judges: Sequence[Pool] = ()

    @property
    def allowed(self) -> frozenset[str]:
        return allowed_by(self.method)

    @property
    def engines(self) -> list[Engine]:
        return [engine for pool in (self.pool, *self.judges) for engine in pool.engines]


def allowed_by(method: Method[Any]) -> frozenset[str]:
    """Return the capabilities that a method may use: those it declares, and writing text."""
    return method.needs().declared | {"generate"}


class OpenSystem:
    """A fitted system whose engines stay open::

        async with moco.open("runs/arithmetic-debate-s0-1a2b3c4d") as system:
            asked = await system.ask("What is 3 plus 4?")

    Questions that are asked at the same time are batched together. ``system`` is the system itself once it is entered.
    """

    system: System

    def __init__(self, parts: SystemParts, cache: Path | None) -> None:
        self.parts = parts
        self._cache = cache

    async def __aenter__(self) -> OpenSystem:
        """Open the runtime and make the system. Raises what making it raises; RunFailed if models were asked before."""
        self.runtime = await Runtime(self._cache, self.parts.engines).__aenter__()
        self._state = self.runtime.state(self.parts.metric, seed=self.parts.seed, sampling=self.parts.sampling)
        try:
            self.system = await self.parts.make(self._state.context("fit", allowed=self.parts.allowed))
        except BaseException as error:
            await self.runtime.__aexit__()
            raise self._told(error) from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.runtime.__aexit__(*exc)

    def _told(self, error: BaseException) -> BaseException:
        """Models were asked already: work failed then, whatever the reason."""
        wrong = isinstance(error, (ConfigError, CapabilityError, DatasetError)) and not isinstance(error, PoolError)
        return RunFailed(str(error)) if wrong and self._state.ledger.calls else error

    async def ask(
        self, question: str | Question, *, sampling: Sampling | None = None, seed: int | None = None
    ) -> Asked:
        """Answer one question, decoded and seeded as the system was fitted unless told otherwise. Raises ModelCallError."""
        item = question if isinstance(question, Question) else Question(id="ask-0", prompt=question)
        state = attrs.evolve(
            self._state,
            sampling=sampling or self.parts.sampling,
            seed=self.parts.seed if seed is None else seed,
            ledger=Ledger(),
            warnings=[],
        )
        context = state.context("respond", item, allowed=self.parts.allowed)
        reply = await self.system.respond(item, context)
        return Asked(reply=reply, calls=tuple(context.calls))

    async def ask_many(self, questions: Sequence[str | Question]) -> list[Asked]:
        """Answer several questions together, in order."""
        items = [q if isinstance(q, Question) else Question(id=f"ask-{i}", prompt=q) for i, q in enumerate(questions)]
        root = self._state.context("respond", allowed=self.parts.allowed)
        return await root.each(items, lambda item, _: self.ask(item))
