"""Run a method on a pool as a run does, but without a run folder: real scheduler, real cache, real contexts."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from moco_core.data import Metric
from moco_core.errors import MocoError
from moco_core.methods import Method, System
from moco_core.models import Model, Pool, PoolSource
from moco_core.options import NoOptions, Plugin
from moco_core.runtime.cache import Cache
from moco_core.runtime.contexts import RunState
from moco_core.runtime.runtime import Runtime
from moco_core.types import Example, Question, Reply, Sampling
from moco_toolkit_authoring.toy import LastWord

__all__ = ["Outcome", "as_plugin", "as_pool", "open_state", "run_method"]

PoolLike = Pool | PoolSource[Any] | Sequence[Model]
_SAMPLING = Sampling(temperature=0.7, max_new_tokens=64)


def as_pool(source: PoolLike) -> Pool:
    """Return the models of a pool plugin, or a sequence of models, as a pool."""
    if isinstance(source, Pool):
        return source
    return Pool(source.models() if isinstance(source, PoolSource) else source)


def as_plugin(pool: PoolLike) -> Plugin:
    """Return models as the value of an option that holds a pool (``judge: Plugin | None = plugin_option("pool", None)``)."""
    models = tuple(as_pool(pool))

    class Given(PoolSource[NoOptions]):
        def models(self) -> Sequence[Model]:
            return models

    return Plugin(kind="pool", name="given", given={}, options=NoOptions(), cls=Given)


@asynccontextmanager
async def open_state(
    *,
    metric: Metric[Any] | None = None,
    seed: int = 0,
    sampling: Sampling = _SAMPLING,
    in_flight: int = 256,
    cache: Cache | None = None,
) -> AsyncIterator[RunState]:
    """Open what the contexts of a run share. Make contexts with ``state.context("respond", question)``."""
    async with Runtime(cache) as runtime:
        yield runtime.state(metric or LastWord(NoOptions()), seed=seed, sampling=sampling, in_flight=in_flight)


@attrs.define(kw_only=True)
class Outcome:
    """What came out of fitting and asking. ``errors`` holds the questions that failed; ``calls`` counts by phase.

    ``calls`` has the model calls of ``fit``, ``respond`` and ``metric``; ``calls_per_question`` those of each question,
    answered from the cache or not, and ``told`` what was told of its reply meanwhile. ``files`` are the names that the
    system's ``save_files`` wrote, ``notes`` the lines of the fit log.
    """

    state: Mapping[str, Any] = attrs.field(factory=dict)
    files: tuple[str, ...] = ()
    replies: dict[str, Reply] = attrs.field(factory=dict)
    errors: dict[str, MocoError] = attrs.field(factory=dict)
    calls: Counter[str] = attrs.field(factory=Counter)
    calls_per_question: dict[str, int] = attrs.field(factory=dict)
    told: dict[str, list[str]] = attrs.field(factory=dict)
    warnings: list[str] = attrs.field(factory=list)
    notes: list[Mapping[str, Any]] = attrs.field(factory=list)

    def noted(self, name: str) -> Any:
        """Return what the fit log says last under a name. Raises KeyError if it says nothing."""
        for note in reversed(self.notes):
            if name in note:
                return note[name]
        raise KeyError(name)

    @property
    def reply(self) -> Reply:
        """The reply to the one question that was asked. Raises the error that it failed with."""
        for error in self.errors.values():
            raise error
        (reply,) = self.replies.values()
        return reply

    @property
    def texts(self) -> dict[str, str]:
        return {k: r.text for k, r in sorted(self.replies.items())}


def run_method(
    method: Method[Any],
    pool: PoolLike,
    *,
    dev: Sequence[Example] = (),
    questions: Sequence[Question] = (),
    metric: Metric[Any] | None = None,
    seed: int = 0,
    sampling: Sampling = _SAMPLING,
    in_flight: int = 256,
    allowed: frozenset[str] | None = None,
    reload_with: Method[Any] | None = None,
    after_fit: Callable[[System], None] | None = None,
    cache: Cache | None = None,
) -> Outcome:
    """Fit ``method`` on ``pool`` and ``dev``, then ask the fitted system every question, ``in_flight`` at once.

    ``allowed`` restricts the capabilities that may be used; ``reload_with`` saves the system and lets that method
    restore it before anything is asked; ``after_fit`` is called between fitting and asking. A question that fails with
    a MocoError is kept in ``errors``; any other exception is raised, and so is every exception of ``fit``.
    """
    return asyncio.run(
        _run(
            method,
            as_pool(pool),
            list(dev),
            list(questions),
            allowed=allowed,
            reload_with=reload_with,
            after_fit=after_fit,
            state_of=lambda: open_state(metric=metric, seed=seed, sampling=sampling, in_flight=in_flight, cache=cache),
        )
    )


async def _run(
    method: Method[Any],
    pool: Pool,
    dev: list[Example],
    questions: list[Question],
    *,
    allowed: frozenset[str] | None,
    reload_with: Method[Any] | None,
    after_fit: Callable[[System], None] | None,
    state_of: Callable[[], Any],
) -> Outcome:
    outcome = Outcome()
    async with state_of() as state:
        state.on_note = lambda phase, note: outcome.notes.append(note)
        system = await method.fit(pool, dev, state.context("fit", allowed=allowed))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            outcome.state = system.state()
            system.save_files(folder)
            outcome.files = tuple(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()))
            if reload_with is not None:
                system = reload_with.restore(pool, outcome.state, folder)
            if after_fit is not None:
                after_fit(system)
            await _ask_all(system, questions, state, allowed, outcome)
        for phase, _, tally in state.ledger:
            outcome.calls[phase] += tally.calls
        outcome.warnings = list(state.warnings)
    return outcome


async def _ask_all(
    system: System, questions: Sequence[Question], state: RunState, allowed: frozenset[str] | None, outcome: Outcome
) -> None:
    gate = asyncio.Semaphore(state.in_flight)

    async def ask(question: Question) -> None:
        async with gate:
            told = outcome.told[question.id] = []
            context = attrs.evolve(state, on_reply=told.append).context("respond", question, allowed=allowed)
            try:
                outcome.replies[question.id] = await system.respond(question, context)
            except MocoError as error:
                outcome.errors[question.id] = error
            outcome.calls_per_question[question.id] = len(context.calls)

    async with asyncio.TaskGroup() as group:
        for question in questions:
            group.create_task(ask(question))
