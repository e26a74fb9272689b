"""What is in memory: models are loaded once, stay, and leave when others need the room."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import torch

from moco_core.errors import ConfigError, EngineOutOfMemory
from moco_core.models import Model
from moco_pool_transformers.adapting import Adapters
from moco_pool_transformers.loaded import LoadedModel, memory_errors
from moco_pool_transformers.placement import SHARE
from moco_pool_transformers.weights import LOADING, ComputedWeights, StoredWeights, auto_class, state_of, weights_of
from moco_toolkit_checkpoints.local import Weights
from moco_toolkit_checkpoints.rendering import Renderer
from moco_toolkit_checkpoints.specs import Spec
from moco_toolkit_checkpoints.transformers import AutoTokenizer, logging
from moco_toolkit_decoding.attention import share_keys
from moco_toolkit_decoding.runner import CacheProbe

__all__ = ["Residency"]


@attrs.define(eq=False)
class Base:
    """One module in memory, with the adapters on it."""

    key: tuple[str, ...]
    device: str
    lock: Any = attrs.field(factory=threading.RLock)
    module: Any = None
    adapters: Adapters | None = None
    size: int = 0  # set before the module is loaded: its room is taken then
    used: float = 0.0
    pins: int = 0
    replica: bool = True  # opened as a replica only: the first to leave
    unwanted: bool = False
    models: dict[tuple[str, int], LoadedModel] = attrs.field(factory=dict)
    names: set[str] = attrs.field(factory=set)
    stale: bool = False  # content is claimed but not written yet
    content: str = ""  # fingerprint of the computed weights that are in the module
    state: dict[str, Any] = attrs.field(factory=dict)  # the module's tensors by name, once they were overwritten
    opened: dict[str, StoredWeights] = attrs.field(factory=dict)  # sources of computed weights, mapped, by fingerprint
    probe: CacheProbe = attrs.field(factory=CacheProbe)


class Residency:
    """The loaded models of one engine. Thread-safe.

    ``budget`` bounds the bytes of weights per device; None takes 85 % of what is free when the first model is loaded there.
    """

    def __init__(self, budget: int | None = None, *, trust_remote_code: bool = False) -> None:
        self.budget = budget
        self.trust_remote_code = trust_remote_code
        self.demand: Mapping[str, int] = {}
        self.loads = 0
        self.closed = False
        self._lock = threading.RLock()
        self._left = threading.Condition(self._lock)
        self._bases: dict[tuple[str, ...], Base] = {}
        self._free: dict[str, int] = {}
        self._tokenizers: dict[Any, Any] = {}

    def names(self) -> list[str]:
        """Return the names of the models in memory."""
        return sorted(n for b in self._bases.values() if b.module is not None for n in b.names)

    def holds(self, model: Model) -> bool:
        """Return whether a model is in memory, opened; takes no lock."""
        return any(b.module is not None and model.name in b.names for b in list(self._bases.values()))

    def free(self) -> None:
        """Drop every module that is not in use."""
        with self._lock:
            for base in self._bases.values():
                if not base.pins:
                    self._evict(base)

    def relieve(self, model: Model) -> None:
        """Make room after a batch did not fit: drop what is idle on the model's device, and torch's own reserve."""
        spec = model.info.get("spec")
        device, key = (spec.device, spec.base_key) if spec else (model.device_group, ())
        with self._lock:
            for base in self._bases.values():
                own = base.key == key or model.name in base.names
                if base.device == device and not base.pins and not own:
                    self._evict(base)
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()

    @contextmanager
    def use(self, models: Sequence[Model]) -> Iterator[tuple[LoadedModel, ...]]:
        """Load, pin and lock. See :meth:`moco_toolkit_checkpoints.local.LocalEngine.use`."""
        with self._lock:
            bases: list[Base] = []
            for model in models:
                base = self._base(model)
                base.pins += 1
                bases.append(base)
        slots: list[tuple[Adapters, str]] = []
        try:
            with ExitStack() as stack:
                for base in sorted({id(b): b for b in bases}.values(), key=lambda b: b.key):
                    stack.enter_context(base.lock)
                yield tuple(self._open(m, b, slots) for m, b in zip(models, bases, strict=True))
        finally:
            with self._lock:
                for adapters, slot in slots:
                    adapters.release(slot)
                for base in bases:
                    base.pins -= 1
                    base.size *= base.module is not None  # it may not have been loaded
                    base.used = time.monotonic()
                    if self.closed and not base.pins:  # the run ended while this was in use
                        self._evict(base)
                self._left.notify_all()

    def _base(self, model: Model) -> Base:
        spec: Spec = model.info["spec"]
        if not spec.computed or model.adapter:
            return self._bases.setdefault(spec.base_key, Base(spec.base_key, spec.device))
        # computed weights: the module that holds them already, else one that nobody uses, else one more
        number = 0
        idle: Base | None = None
        while (key := (*spec.base_key, str(number))) in self._bases:
            base = self._bases[key]
            if base.content == model.fingerprint:
                return base
            if not base.pins and (idle is None or (base.module is not None and idle.module is None)):
                idle = base
            number += 1
        chosen = idle or self._bases.setdefault(key, Base(key, spec.device))
        chosen.content = model.fingerprint  # claimed now, so that a second model of one `use` takes another module
        chosen.stale = True
        return chosen

    def _open(self, model: Model, base: Base, slots: list[tuple[Adapters, str]]) -> LoadedModel:
        spec: Spec = model.info["spec"]
        if not spec.replica:
            base.replica = False
        if base.module is None:
            self._make_room(spec.base_bytes, base)
            base.module = self._load(spec, model.name)
            base.stale = True
        if spec.computed and not model.adapter and base.stale:
            self._forget(base)
            _overwrite(base, weights_of(model, base.opened), model.name)
            base.stale = False
        adapter = self._adapter(model, spec, base, slots) if spec.adapter else None
        found = base.models.get((model.fingerprint, model.copy))
        if found is None:
            found = self._wrap(model, spec, base, adapter)
            base.models[model.fingerprint, model.copy] = found
        if not spec.replica:
            base.names.add(model.name)
        base.used = time.monotonic()
        return found

    def _forget(self, base: Base) -> None:
        for loaded in base.models.values():
            loaded.scratch.clear()
        base.models.clear()
        base.names.clear()

    def _wrap(self, model: Model, spec: Spec, base: Base, adapter: str | None) -> LoadedModel:
        renderer = Renderer(
            model.name,
            self._tokenizer(spec),
            style=spec.style,
            overlong=spec.overlong,
            context=model.context_length,
            tags=spec.tags,
            template_options=spec.template_options,
        )
        return LoadedModel(
            model,
            base.module,
            renderer,
            tags=spec.tags,
            ends=spec.ends,
            activate=lambda: base.adapters.activate(adapter) if base.adapters is not None else None,
            probe=base.probe,
        )

    def _tokenizer(self, spec: Spec) -> Any:
        """Return the tokenizer; one object per device, since thousands of derived models may use it."""
        key = (spec.tokenizer_folder, spec.template_text, spec.device)
        with self._lock:
            found = self._tokenizers.get(key)
            if found is None:
                folder = spec.tokenizer_folder
                found = AutoTokenizer.from_pretrained(
                    folder, trust_remote_code=self.trust_remote_code, local_files_only=True
                )
                if spec.template_text is not None:
                    found.chat_template = spec.template_text
                self._tokenizers[key] = found
        return found

    def _load(self, spec: Spec, name: str) -> Any:
        self.loads += 1
        try:
            with memory_errors(name), LOADING, _quiet():
                module, info = auto_class(spec.loader).from_pretrained(
                    spec.local_folder(),
                    dtype=getattr(torch, spec.dtype),
                    use_safetensors=True,
                    trust_remote_code=self.trust_remote_code,
                    local_files_only=True,
                    output_loading_info=True,
                )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, TypeError) as error:
            text = " ".join(str(error).split())[:300]
            raise ConfigError(f"model {name!r}: cannot load {spec.folder}: {text}") from error
        # the library fills what it does not find with random numbers, and only warns; an encoder's pooler is never read
        ignored = ("pooler.",) if spec.task == "embed" else ()
        if absent := sorted(name for name in info["missing_keys"] if not name.startswith(ignored)):
            raise ConfigError(
                f"model {name!r}: {spec.folder} lacks {len(absent)} of its tensors ({absent[0]}, ...); it is incomplete"
            )
        with memory_errors(name):
            module = module.to(spec.device).eval().requires_grad_(False)
        share_keys(module)
        return module

    def _adapter(self, model: Model, spec: Spec, base: Base, slots: list[tuple[Adapters, str]]) -> str:
        """Put the model's adapter on its base, if it is not there, and return its name there."""
        adapters = base.adapters
        if adapters is None:
            adapters = base.adapters = Adapters(base.module)
        if not spec.computed:
            try:
                return adapters.put(model, spec)
            except ConfigError:
                self._drop(base)  # half an adapter may be on it
                raise
        name, before = adapters.fill(model)
        if before is not None:
            for key in [k for k in base.models if k[0] == before]:
                base.models.pop(key).scratch.clear()
        adapters.hold(name)
        slots.append((adapters, name))
        return name

    def _make_room(self, need: int, base: Base) -> None:
        """Reserve the room for a module that will be loaded. A replica takes what is free; others have idle ones leave."""
        with self._lock:
            limit = self._limit(base.device)
            while True:
                there = [b for b in self._bases.values() if b.size and b.device == base.device]
                total = sum(b.size for b in there) + need
                if total <= limit or not (there or base.replica):
                    base.size = need
                    return
                idle = [b for b in there if b.module is not None and not b.pins]
                if base.replica or not (idle or any(b.replica for b in there)):
                    raise EngineOutOfMemory(
                        f"models of {total:,} bytes must be in memory together, the budget for {base.device} is {limit:,}; "
                        "raise the pool option memory or use smaller models"
                    )
                if not idle:
                    for other in there:  # in use, but their room is needed
                        other.unwanted = other.replica
                    self._left.wait()  # replicas end their batches and leave; they wait for nobody
                    continue
                self._evict(min(idle, key=self._use_of))

    def _use_of(self, base: Base) -> tuple[bool, int, float]:
        """Least useful: replicas, then those with the fewest calls waiting, then the longest unused."""
        return not base.replica, sum(self.demand.get(n, 0) for n in base.names), base.used

    def unwanted(self, key: tuple[str, ...]) -> bool:
        """Return whether a replica in use should leave; takes no lock."""
        return key in self._bases and self._bases[key].unwanted

    def _limit(self, device: str) -> int:
        if self.budget is not None:
            return self.budget
        if device not in self._free:
            if device.startswith("cuda"):
                free = torch.cuda.mem_get_info(torch.device(device))[0]
            else:
                free = _available_memory()
            self._free[device] = int(SHARE * free)
        return self._free[device]

    def _evict(self, base: Base) -> None:
        self._drop(base)
        base.size = 0
        base.replica, base.unwanted = True, False
        base.content = ""
        if base.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _drop(self, base: Base) -> None:
        """Let go of a module and of all that was known about it."""
        self._forget(base)
        base.module = base.adapters = None
        base.state, base.opened = {}, {}
        base.probe = CacheProbe()


@contextmanager
def _quiet() -> Iterator[None]:
    """Switch transformers' own progress bars off: the run shows its progress itself."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _overwrite(base: Base, weights: Weights, name: str) -> None:
    """Write computed weights into a module's parameters in place: no reallocation, ties and device kept."""
    base.state = base.state or state_of(base.module)
    missing = set(base.state) - set(weights.names)
    if missing:
        raise ConfigError(f"model {name!r}: its recipe has no tensor for {min(missing)}")
    with torch.no_grad():
        for key, parameter in base.state.items():
            if isinstance(weights, ComputedWeights):
                weights.write(key, parameter)
            else:
                parameter.copy_(weights.get(key))


def _available_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 8 << 30  # no way to know: assume a small machine
