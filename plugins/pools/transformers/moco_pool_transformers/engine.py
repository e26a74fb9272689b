"""The engine: one device group per device, models loaded once, calls served in continuous batches."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs

from moco_core.errors import CapabilityError, EngineOutOfMemory, ModelCallError, PoolError
from moco_core.models import CAPABILITIES, Call, Engine, Inbox, Model, Recipe
from moco_core.training import TrainingJob, TrainingSite
from moco_pool_transformers.cpu import CpuPlan, cores
from moco_pool_transformers.options import Options
from moco_pool_transformers.placement import missing
from moco_pool_transformers.replicas import ReplicaInbox, ReplicaSet

if TYPE_CHECKING:
    from moco_pool_transformers.loaded import LoadedModel
    from moco_pool_transformers.residency import Residency
    from moco_toolkit_checkpoints.local import AdapterWeights, ModelFiles, ServingRecipe, Weights
    from moco_toolkit_checkpoints.specs import Spec
    from moco_toolkit_decoding.prefixes import PrefixStore

__all__ = ["TransformersEngine"]


class TransformersEngine(Engine):
    """See :class:`moco_core.models.Engine` and :class:`moco_toolkit_checkpoints.local.LocalEngine`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.max_batch = options.max_batch
        self.cpu = CpuPlan(cores=cores())
        self._residency: Residency | None = None
        self._opening = threading.Lock()
        self._replica_sets: dict[tuple[str, int], ReplicaSet] = {}
        self._stores: dict[str, PrefixStore] = {}

    @property
    def residency(self) -> Residency:
        """The loaded models; made on first use, so that describing a pool imports no torch."""
        with self._opening:
            if self._residency is None:
                from moco_pool_transformers.residency import Residency

                memory = self.options.memory
                self._residency = Residency(
                    None if memory is None else int(memory * 2**30), trust_remote_code=self.options.trust_remote_code
                )
            return self._residency

    # ---------------------------------------------------------------- serving

    def serve(self, model: Model, inbox: Inbox) -> None:
        """Answer calls of ``model`` until none waits. See :meth:`moco_core.models.Engine.serve`."""
        self.residency.demand = dict(inbox.demand)
        replicas: tuple[str, ...] = model.info.get("replicas", ())
        if not replicas:
            self._turn(model, inbox)
            return
        copies = {device: _replica(model, device) for device in replicas}
        replica_set = self._replica_sets.get((model.fingerprint, model.copy))
        if replica_set is None:
            keys = {device: copy.info["spec"].base_key for device, copy in copies.items()}
            replica_set = ReplicaSet(
                model.info["spec"].device, replicas, self.max_batch, lambda d: self.residency.unwanted(keys[d])
            )
            self._replica_sets[model.fingerprint, model.copy] = replica_set
        replica_set.run(inbox, lambda share: self._turn(copies.get(share.device, model), share))

    def _turn(self, model: Model, inbox: Inbox) -> None:
        """Open a model and answer calls until none waits."""
        import torch

        from moco_pool_transformers.loaded import memory_errors

        if self.cpu.threads is not None and model.device_group.startswith("cpu"):
            torch.set_num_threads(self.cpu.threads)  # of this thread
        try:
            with memory_errors(model.name):
                if model.recipe is not None and model.recipe.kind == "serving":
                    cast("ServingRecipe", model.recipe).serve(self, model, model.sources, inbox)
                else:
                    with self.use(model) as (loaded,):
                        if isinstance(inbox, ReplicaInbox):
                            inbox.open = True
                        self._serve(loaded, inbox)
        except EngineOutOfMemory as error:
            message = str(error)
        else:
            return
        # the failed batch is gone with its frames: give back what it held, and what nobody uses, before the retry
        for store in self._stores.values():
            store.clear()
        self.residency.relieve(model)
        raise EngineOutOfMemory(message)

    def _serve(self, loaded: LoadedModel, inbox: Inbox) -> None:
        from moco_pool_transformers.batch import Batch, Row, StaticBatch, new_batch

        batch: Batch | StaticBatch | None = None
        while not inbox.cancelled:
            running = len(batch) if batch is not None else 0
            free = max(1, min(inbox.limit, self.max_batch)) - running
            # a prefill costs a whole forward: let a few places become free before filling them, unless all can come in
            waiting = inbox.waiting
            taken = inbox.take(free) if waiting and free >= min(waiting, self._fill(inbox)) else []
            rows: list[Row] = []
            others: list[Call] = []
            for call in taken:
                if call.kind in CAPABILITIES and not loaded.model.can(call.kind):
                    what = CAPABILITIES[call.kind]
                    inbox.reject(call, CapabilityError(f"model {loaded.model.name!r} cannot {what}"))
                elif call.kind != "generate":
                    others.append(call)
                else:
                    try:
                        rows.append(Row.of(call, loaded))
                    except Exception as error:  # one bad request fails alone
                        inbox.reject(call, error)
            if rows:
                if batch is None:
                    batch = new_batch(loaded, self.max_batch, self._prefixes(loaded))
                _deliver(inbox, batch.admit(rows))
            if others:
                self._answer(loaded, others, inbox)
            if batch is not None and len(batch):
                _deliver(inbox, batch.step())
            elif others or (not taken and not inbox.waiting):
                # sessions of several models take turns: after a round the scheduler says whose turn it is
                return

    def _prefixes(self, loaded: LoadedModel) -> PrefixStore | None:
        """Return what keeps the prompts of all models on this one's device, if prompts are kept."""
        from moco_toolkit_decoding.prefixes import PrefixStore

        limit = int(self.options.prefix_memory * 2**30)
        return self._stores.setdefault(str(loaded.device), PrefixStore(limit)) if limit else None

    def _fill(self, inbox: Inbox) -> int:
        return max(1, min(inbox.limit, self.max_batch) // 8)

    def _answer(self, loaded: LoadedModel, calls: Sequence[Call], inbox: Inbox) -> None:
        """Answer calls that are no generations, grouped by what can run together."""
        from moco_pool_transformers.loaded import memory_errors
        from moco_pool_transformers.scoring import KINDS

        groups: dict[tuple[str, Hashable], list[Call]] = {}
        for call in calls:
            group = None if call.kind in KINDS else getattr(call.payload, "group", None)
            groups.setdefault((call.kind, group), []).append(call)
        for (kind, _), members in groups.items():
            run = KINDS.get(kind) or getattr(members[0].payload, "run", None)
            if run is None:
                error: Exception = ModelCallError(f"{loaded.model.name}: no such kind of call: {kind!r}")
                _deliver(inbox, [(call, error) for call in members])
                continue
            try:
                with memory_errors(loaded.model.name):
                    results = run(loaded, members)
            except EngineOutOfMemory:
                raise
            except Exception as caught:
                results = [caught] * len(members)
            _deliver(inbox, list(zip(members, results, strict=True)))

    # ---------------------------------------------------------------- local engine

    def use(self, *models: Model) -> AbstractContextManager[tuple[LoadedModel, ...]]:
        return self.residency.use(models)

    def weights(self, model: Model) -> Weights:
        from moco_pool_transformers.weights import weights_of

        return weights_of(model)

    def adapter_weights(self, model: Model) -> AdapterWeights:
        from moco_pool_transformers.weights import adapter_of

        return adapter_of(model)

    def files(self, model: Model) -> ModelFiles:
        from moco_toolkit_checkpoints.local import ModelFiles

        spec: Spec | None = model.info.get("spec")
        if spec is None or spec.computed:
            return ModelFiles()
        return ModelFiles(
            checkpoint=Path(spec.folder) if spec.folder else None,
            tokenizer=Path(spec.tokenizer_folder),
            adapter=Path(spec.adapter) if spec.adapter else None,
            named=str(spec.entry.get("model", "")),
            base=spec.base_print,
        )

    def folder(self, model: Model) -> Path:
        spec = model.info.get("spec")
        if spec is None or (spec.computed and not model.adapter):
            raise CapabilityError(f"model {model.name!r} lies in no folder; export it first")
        return Path(spec.local_folder())

    def entry(self, model: Model) -> Mapping[str, Any]:
        spec = model.info.get("spec")
        if spec is None or spec.computed:
            raise CapabilityError(f"model {model.name!r} was derived and lies in no folder; export it first")
        return {**spec.entry, "model": spec.local_folder(), "adapter": spec.adapter, "dtype": spec.dtype}

    def export(self, model: Model, folder: Path) -> None:
        from moco_pool_transformers.export import export

        export(model, folder)

    def train(self, model: Model, job: TrainingJob, site: TrainingSite) -> Mapping[str, Any]:
        """See :meth:`moco_core.models.Engine.train`. What is idle leaves memory first; the job loads the model itself."""
        from moco_pool_transformers.training import site_of

        lent = site_of(model, site, self.entry(model), self.cpu, self.options)
        self.free()
        return job.run(lent)

    def resident(self) -> Collection[str]:
        return self.residency.names()

    def free(self) -> None:
        if self._residency is not None:
            self._residency.free()

    def walk(self, model: Model) -> Iterator[Model]:
        if not model.sources:
            yield model
            return
        for source in model.sources:
            yield from self.walk(source)

    def ready(self, model: Model) -> bool:
        if self._residency is None:
            return False
        if model.recipe is not None and model.recipe.kind == "serving":
            return all(self.ready(source) for source in model.sources)
        return self._residency.holds(model)

    def derive(self, name: str, recipe: Recipe, sources: Sequence[Model]) -> Model:
        from moco_pool_transformers.derived import derive

        return derive(self, name, recipe, sources)

    def facts(self) -> Mapping[str, Any]:
        return {"engine": "transformers", "cpu": self.cpu.facts(os.environ)}

    async def start(self, runtime: Any) -> None:
        entries = [e for e in self.options.models if not isinstance(e, str)]
        for device in (self.options.device, *(e.device for e in entries)):
            if problem := missing(device):
                raise PoolError(f"device: {problem}")
        if self._residency is not None:
            self._residency.closed = False

    async def close(self) -> None:
        if self._residency is not None:
            self._residency.closed = True
            self._residency.free()
        self._replica_sets.clear()
        self._stores.clear()


def _replica(model: Model, device: str) -> Model:
    return attrs.evolve(model, device_group=device, info={**model.info, "spec": model.info["spec"].on(device)})


def _deliver(inbox: Inbox, results: Sequence[tuple[Call, Any]]) -> None:
    """Hand results on; errors fail their own call alone."""
    good = [(call, result) for call, result in results if not isinstance(result, Exception)]
    if good:
        inbox.resolve(good)
    for call, result in results:
        if isinstance(result, Exception):
            inbox.reject(call, result)
