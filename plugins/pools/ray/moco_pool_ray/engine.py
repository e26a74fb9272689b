"""The run's side of an actor: its calls are sent there in batches, and asked again where an actor was lost."""

from __future__ import annotations

import itertools
import pickle
import time
import uuid
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import attrs

from moco_core import Call, CapabilityError, Engine, EngineOutOfMemory, Inbox, Model, ModelCallError, Recipe
from moco_core.training import TrainingJob, TrainingSite
from moco_pool_ray.fleet import Actor, Fleet, Lost
from moco_pool_ray.placing import needs_of
from moco_pool_ray.sending import introduced, trained
from moco_pool_ray.session import PLAIN
from moco_pool_ray.wire import Reader, Writer
from moco_toolkit_checkpoints.local import AdapterWeights, Loaded, LocalEngine, ModelFiles, Weights

__all__ = ["RayEngine", "RayLocalEngine", "engine_for"]

_AHEAD = 2048
"""Calls of a model that an actor has at most: the engine there sees enough to batch, and what nobody wants is not asked."""

_LOOK = 0.005  # seconds between two looks at whether further calls wait while the actor answers
_SILENCE = 20.0  # seconds without a word of the actor after which it is seen whether the cluster is there


class RayEngine(Engine):
    """One actor with its models; ``inner`` describes what it makes, and opens nothing here."""

    def __init__(self, fleet: Fleet, number: int, inner: Engine, node: str) -> None:
        self.fleet, self.number, self.inner = fleet, number, inner
        self._node = node
        self._ready: frozenset[str] = frozenset()
        self._writer = Writer(self._key)
        self._reader = Reader(lambda name: self._here[name])
        self._here: dict[str, Model] = {}
        self._dropped: list[str] = []
        self._closed = False

    # ---------------------------------------------------------------- models

    def seat(self, model: Model) -> Model:
        """Return an inner model as one of this engine's."""
        # an engine that batches by itself serves all of its models at once
        group = model.name if self.inner.batches_itself else model.device_group
        info = {"inner": model, "actor": self.number}
        placed = attrs.evolve(model, engine=self, device_group=f"ray actor {self.number}: {group}", info=info)
        if model.recipe is None:
            self._here[model.name] = placed
        return placed

    def _key(self, model: Model) -> str:
        """Return what a model is called on the actor, whatever it is called in the run."""
        inner: Model = model.info["inner"] if model.engine is self else model
        if inner.engine is not self.inner:
            raise CapabilityError(
                f"model {model.name!r} does not sit on actor {self.number}; put both on one (placement)"
            )
        return inner.name if inner.recipe is None else f"{inner.name} {inner.fingerprint}"

    def derive(self, name: str, recipe: Recipe, sources: Sequence[Model]) -> Model:
        """Describe the derived model here; the actor makes it when it is first called."""
        inner = self.inner.derive(name, recipe, [s.info["inner"] for s in sources])
        made = self.seat(inner)
        weakref.finalize(inner, self._dropped.append, self._key(made))
        return attrs.evolve(made, sources=tuple(sources))

    def ready(self, model: Model) -> bool:
        return self._key(model) in self._ready

    def facts(self) -> Mapping[str, Any]:
        seat = self.fleet.seats[self.number]
        return {
            "engine": "ray",
            "actor": self.number,
            "node": self._node,
            "models": " ".join(seat.models),
            "needs": needs_of(seat),
            "inner": dict(self.inner.facts()),
        }

    # ---------------------------------------------------------------- life

    async def start(self, runtime: Any) -> None:
        import asyncio

        self._closed = False
        await asyncio.to_thread(self.fleet.actor, self.number, lambda: self._closed)

    async def close(self) -> None:
        import asyncio

        self._closed = True
        self._ready = frozenset()
        await asyncio.to_thread(self.fleet.release, self.number)

    # ---------------------------------------------------------------- calls

    def serve(self, model: Model, inbox: Inbox) -> None:
        """Send calls as they come and deliver answers as they come back; see :meth:`moco_core.models.Engine.serve`."""
        talk = _Talk(self, model, inbox)
        while not inbox.cancelled:
            try:
                talk.hold(self.fleet.actor(self.number, lambda: inbox.cancelled))
                return
            except Lost as lost:
                self._ready = frozenset()
                self.fleet.bury(lost)
                if lost.memory:  # fewer calls at once may fit
                    raise EngineOutOfMemory(f"{model.name}: {lost}") from None

    def introduce(self, actor: Actor, model: Model) -> str:
        """Tell the actor of a derived model, and of those it is made of; return its name there."""
        key = self._key(model)
        if self._dropped:
            gone_here, self._dropped[:] = list(self._dropped), []
            actor.send("forget", gone_here)
            actor.known.difference_update(gone_here)
        if model.recipe is not None and key not in actor.known:
            for source in model.sources:
                self.introduce(actor, source)
            made = (model.info["inner"].name, introduced(actor, model.recipe), model.sources)
            actor.call("introduce", key, self._writer.dumps(made))
            actor.known.add(key)
        return key

    def train(self, model: Model, job: TrainingJob, site: TrainingSite) -> Mapping[str, Any]:
        """Have the actor train the model; see :meth:`moco_core.models.Engine.train`."""
        while True:
            actor = self.fleet.actor(self.number, site.cancelled)
            try:
                figures = trained(actor, self.introduce(actor, model), self._writer.dumps(job), site)
                self.fleet.answered(self.number)
                return figures
            except Lost as lost:
                self.fleet.bury(lost)


class _Talk:
    """The calls of one turn of a model, over as many actors as it takes."""

    def __init__(self, engine: RayEngine, model: Model, inbox: Inbox) -> None:
        self._engine, self._model, self._inbox = engine, model, inbox
        self._open: dict[int, Call] = {}
        self._numbers = itertools.count()

    def hold(self, actor: Actor) -> None:
        """Serve until no call waits and every one that was sent is answered. Raises Lost, EngineOutOfMemory."""
        import ray

        engine, inbox = self._engine, self._inbox
        key = engine.introduce(actor, self._model)
        name, since, news, heard = uuid.uuid4().hex, 0, None, time.monotonic()
        asked = self._ask(actor, name, key, self._open) if self._open else None
        while not inbox.cancelled:
            # while a request is on its way, what comes meanwhile is gathered for the next one
            if asked is None and len(self._open) < _AHEAD and inbox.waiting:
                numbered = {next(self._numbers): call for call in inbox.take(_AHEAD - len(self._open))}
                self._open |= numbered
                asked = self._ask(actor, name, key, numbered) if numbered else None
            if not self._open:
                break
            news = actor.send("results", name, since) if news is None else news
            watched = [news] if asked is None else [news, asked]
            done, _ = ray.wait(watched, num_returns=1, timeout=_LOOK)
            if asked in done:
                actor.get(asked)  # a request that could not be read fails what it asked
                asked = None
            if news in done:
                found, told, ready, problem = actor.get(news)
                news, heard = None, time.monotonic()
                engine._ready = frozenset(ready)
                for number, text in told.items():
                    if (call := self._open.get(number)) is not None and call.tell is not None:
                        call.tell(text)
                since += self._deliver(pickle.loads(found))
                if problem is not None:
                    raise problem
            elif time.monotonic() - heard > _SILENCE:
                heard = time.monotonic()
                if (error := engine.fleet.gone()) is not None:
                    raise error
        actor.send("end", name)

    def _ask(self, actor: Actor, name: str, key: str, calls: Mapping[int, Call]) -> Any:
        engine = self._engine
        packed = []
        for number, call in list(calls.items()):
            try:
                payload = None if call.payload is None else engine._writer.dumps(call.payload)
            except Exception as error:
                self._open.pop(number, None)
                wrong = f"{self._model.name}: what this call carries cannot be sent to its actor: {error}"
                self._inbox.reject(call, error if isinstance(error, CapabilityError) else ModelCallError(wrong))
                continue
            listened = call.tell is not None
            packed.append((number, call.kind, call.input, dict(call.params), call.seed, payload, listened))
        dropped, engine._writer.dropped[:] = list(engine._writer.dropped), []
        data = pickle.dumps(packed, protocol=5)
        return actor.send("ask", name, key, data, dropped, self._inbox.limit, dict(self._inbox.demand))

    def _deliver(self, found: Sequence[tuple[int, Any]]) -> int:
        engine = self._engine
        results = []
        for number, result in found:
            call = self._open.pop(number, None)
            if call is None:
                continue
            if isinstance(result, Exception):
                self._inbox.reject(call, result)
            else:
                results.append((call, result if call.kind in PLAIN else engine._reader.loads(result)))
        if results:
            self._inbox.resolve(results)
            engine.fleet.answered(engine.number)
        return len(found)


class RayLocalEngine(RayEngine):
    """An actor whose engine works inside its models. What needs no device is done here, from the same files."""

    @property
    def _local(self) -> LocalEngine:
        return cast(LocalEngine, self.inner)

    def use(self, *models: Model) -> AbstractContextManager[tuple[Loaded, ...]]:
        raise CapabilityError(
            f"{', '.join(m.name for m in models)}: on a Ray actor, where they cannot be worked on directly from the run; open "
            "their pool without ray"
        )

    def weights(self, model: Model) -> Weights:
        return self._local.weights(model.info["inner"])

    def adapter_weights(self, model: Model) -> AdapterWeights:
        return self._local.adapter_weights(model.info["inner"])

    def files(self, model: Model) -> ModelFiles:
        return self._local.files(model.info["inner"])

    def folder(self, model: Model) -> Path:
        return self._local.folder(model.info["inner"])

    def entry(self, model: Model) -> Mapping[str, Any]:
        return self._local.entry(model.info["inner"])

    def export(self, model: Model, folder: Path) -> None:
        self._local.export(model.info["inner"], folder)

    def resident(self) -> Collection[str]:
        return self._ready

    def free(self) -> None:
        """Nothing is loaded here; the actor's engine makes room by itself."""

    def walk(self, model: Model) -> Iterator[Model]:
        if not model.sources:
            yield model
        for source in model.sources:
            yield from self.walk(source)


def engine_for(fleet: Fleet, number: int, inner: Engine, node: str) -> RayEngine:
    """Return the engine of an actor, with what its inner engine offers."""
    return (RayLocalEngine if isinstance(inner, LocalEngine) else RayEngine)(fleet, number, inner, node)
