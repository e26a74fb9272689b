"""What an actor is: the inner pool, opened on a node, answering calls of its models in sessions.

Every method may be asked again with the same arguments and does its work once, so that Ray may repeat what it could not
deliver. Nothing is raised: an error is a result, and no traceback with what was asked enters a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs

from moco_core import Call, Engine, EngineOutOfMemory, MocoError, Model, ModelCallError, PoolError
from moco_core.catalogue import installed
from moco_core.options import build_plugin
from moco_pool_ray.files import has, unpack
from moco_pool_ray.session import Session, as_error
from moco_pool_ray.training import Training
from moco_pool_ray.wire import Reader, Writer

__all__ = ["Host", "Spec"]


@attrs.frozen(kw_only=True)
class Spec:
    """What an actor opens: a section of a configuration, its keys masked, and what has to come of it.

    ``models`` are the fingerprints of its models by name, ``files`` those given as ``--plugin``, ``folder`` the one that
    relative paths start from.
    """

    section: Mapping[str, Any]
    models: Mapping[str, str]
    files: Sequence[str] = ()
    folder: str = ""
    version: str = attrs.field(factory=lambda: version("moco-core"))


class _Nobody:
    """Stands in for the runtime that engines ask other models through."""

    def __getattr__(self, name: str) -> Any:
        raise PoolError("a pool that asks other models does not run on a cluster; put the pool ray inside of it")


class Host:
    """The models of one actor."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._sessions: dict[str, Session] = {}
        self._trainings: dict[str, Training] = {}
        self._device_groups: dict[tuple[Engine, str], threading.Lock] = {}
        self._gates: dict[Engine, asyncio.Semaphore] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self._introducing = asyncio.Lock()
        self._reader = Reader(self._models.__getitem__)
        self._writer = Writer(lambda model: model.name, once=True)
        self._threads = ThreadPoolExecutor(max_workers=64, thread_name_prefix="moco-engine")

    @cached_property
    def _scratch(self) -> Path:
        """Where files lie that are not seen from here; most actors need none."""
        return Path(tempfile.mkdtemp(prefix="moco-ray-actor-"))

    # ---------------------------------------------------------------- opening

    async def open(self, spec: Spec) -> dict[str, Any] | Exception:
        """Describe the inner pool here and start its engines; return where this is."""
        try:
            if not self._models:
                found = await asyncio.to_thread(_describe, spec)
                await asyncio.gather(*(e.start(_Nobody()) for e in {m.engine for m in found.values()}))
                self._models.update(found)
        except Exception as error:
            return error if isinstance(error, MocoError) else PoolError(f"{type(error).__name__}: {error}")
        facts = [dict(f) for e in {m.engine for m in self._models.values()} if (f := e.facts())]
        return {"pid": os.getpid(), "engines": facts}

    async def close(self) -> None:
        """Close the engines and remove what lies here."""
        for session in self._sessions.values():
            session.end()
        for engine in {m.engine for m in self._models.values()}:
            with contextlib.suppress(Exception):
                await engine.close()
        if "_scratch" in vars(self):
            shutil.rmtree(self._scratch, ignore_errors=True)

    async def introduce(self, key: str, made: bytes) -> Exception | None:
        """Derive a model here; ``made`` holds its name, its recipe and its sources."""
        async with self._introducing:
            if key in self._models:
                return None
            try:
                name, recipe, sources = self._reader.loads(made)
                engine = sources[0].engine
                self._models[key] = await asyncio.to_thread(engine.derive, name, recipe, sources)
            except Exception as error:
                return as_error(key, error)
        return None

    async def forget(self, keys: Sequence[str]) -> None:
        """Let go of derived models that the run has let go of."""
        for key in keys:
            self._models.pop(key, None)

    # ---------------------------------------------------------------- files

    async def has(self, folder: str, files: Mapping[str, int]) -> bool:
        """Return whether the run's folder is seen from here with the same content."""
        return await asyncio.to_thread(has, Path(folder), files)

    async def put(self, name: str, offset: int, part: bytes) -> None:
        """Write a part of an archive."""
        path = self._scratch / f"{name}.tar"
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(offset)
            file.write(part)

    async def unpack(self, name: str) -> str:
        """Unpack an archive that was put here, and return the folder."""
        folder = self._scratch / name
        archive = self._scratch / f"{name}.tar"
        if archive.exists():
            await asyncio.to_thread(unpack, archive, folder)
            archive.unlink()
        return str(folder)

    # ---------------------------------------------------------------- calls

    async def ask(
        self, name: str, key: str, calls: bytes, dropped: list[int], limit: int, demand: Mapping[str, int]
    ) -> Exception | None:
        """Take in calls of a session, which begins with its first ones."""
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = Session(self._models[key], asyncio.get_running_loop())
        session.limit, session.demand = limit, demand
        self._reader.forget(dropped)
        try:
            given = []
            for number, kind, said, params, seed, payload, listened in pickle.loads(calls):
                tell = session.teller(number) if listened else None
                sent = payload and self._reader.loads(payload)
                given.append((number, Call(session.model, kind, said, params, seed, None, sent, tell)))
        except Exception as error:
            return as_error(session.model.name, error)
        begin = session.add(given)
        if session.model.engine.batches_itself:
            self._keep(self._submit_all(session))
        elif begin:
            self._keep(asyncio.get_running_loop().run_in_executor(self._threads, self._serve, session))
        return None

    async def results(self, name: str, since: int) -> tuple[bytes, dict[int, str], list[str], Exception | None]:
        """Return the outcomes of a session from number ``since`` on once there are any, how far replies are that somebody
        reads along, and which models are ready.
        """
        session = self._sessions.get(name)
        if session is None:
            return pickle.dumps([]), {}, [], None
        found = [
            (number, self._writer.dumps(result) if private and not isinstance(result, Exception) else result)
            for number, private, result in await session.outcomes(since)
        ]
        ready = [key for key, model in self._models.items() if model.engine.ready(model)]
        return pickle.dumps(found, protocol=5), session.told(), ready, session.problem

    async def end(self, name: str) -> None:
        """Forget a session; what it has begun is stopped."""
        if (session := self._sessions.pop(name, None)) is not None:
            session.end()

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _serve(self, session: Session) -> None:
        """Have the engine serve until no call waits: one model of a device group at a time."""
        model = session.model
        with self._device_groups.setdefault((model.engine, model.device_group), threading.Lock()):
            while session.goes_on():
                try:
                    model.engine.serve(model, session)
                except EngineOutOfMemory as error:
                    session.fail(error)
                except MemoryError:
                    session.fail(EngineOutOfMemory(f"{model.name}: its actor ran out of memory"))
                except Exception as error:
                    session.refuse(error)
                else:
                    if session.taken and not session.cancelled:
                        count = session.taken
                        session.refuse(ModelCallError(f"{model.name}: the engine left {count} calls unanswered"))

    async def _submit_all(self, session: Session) -> None:
        """Hand calls to an engine that batches by itself."""
        engine = session.model.engine
        gate = self._gates.setdefault(engine, asyncio.Semaphore(engine.max_in_flight))

        async def submit(call: Call) -> None:
            async with gate:
                if session.cancelled:
                    return
                try:
                    session.resolve([(call, await engine.submit(call))])
                except Exception as error:
                    session.reject(call, error)

        while calls := session.take():
            await asyncio.gather(*(submit(call) for call in calls))
        session.goes_on()

    # ---------------------------------------------------------------- training

    async def train(self, name: str, key: str, job: bytes, seed: int, folder: str, probe: str) -> bool | Exception:
        """Begin a training; return whether it takes place in the run's own folder, which is seen from here."""
        if name not in self._trainings:
            shared = await asyncio.to_thread(Path(probe).exists)
            place = Path(folder) if shared else self._scratch / name
            place.mkdir(parents=True, exist_ok=True)
            try:
                training = Training(self._models[key], self._reader.loads(job), seed, place, shared)
            except Exception as error:
                return as_error(key, error)
            self._trainings[name] = training
            self._keep(asyncio.get_running_loop().run_in_executor(self._threads, training.run))
        return self._trainings[name].shared

    async def events(self, name: str, since: int) -> list[tuple[str, Any]]:
        """Return what a training has said from number ``since`` on, once it has said anything."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._trainings[name].events, since)

    async def answer(self, name: str, number: int, rewards: Sequence[float | None] | Exception) -> None:
        """Hand rewards to the training that asked for them."""
        self._trainings[name].answer(number, rewards)

    async def stop(self, name: str) -> None:
        """Stop a training that the run does not want any more."""
        self._trainings[name].cancelled = True

    async def fetch(self, name: str, offset: int, size: int) -> bytes:
        """Return a part of the archive that a training left."""
        with self._trainings[name].archive.open("rb") as file:
            file.seek(offset)
            return file.read(size)


def _describe(spec: Spec) -> dict[str, Model]:
    """Describe the inner pool and return the models of this actor. Raises PoolError if they are not those of the run."""
    if (mine := version("moco-core")) != spec.version:
        raise PoolError(f"the run has moco-core {spec.version}, this node {mine}; install the same on every node")
    if spec.folder and os.path.isdir(spec.folder):
        os.chdir(spec.folder)
    known = installed()
    for file in spec.files:
        known.register_file(Path(file))
    there = build_plugin(known, "pool", dict(spec.section), "pool").instance.pool
    out = {}
    for name, fingerprint in spec.models.items():
        model = there.named(name)
        if model.fingerprint != fingerprint:
            raise PoolError(
                f"model {name!r} is another one here than where the run is: its files, device or numeric type differ; name "
                "dtype and device in the inner pool, and see that the nodes have the same files"
            )
        out[name] = model
    return out
