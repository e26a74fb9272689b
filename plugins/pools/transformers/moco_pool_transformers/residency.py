"""What is in memory: models are loaded once, stay, and leave when others need the room."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from moco_core.errors import ConfigError, EngineOutOfMemory
from moco_core.models import Model
from moco_pool_transformers.loaded import LoadedModel, memory_errors
from moco_pool_transformers.rendering import Renderer
from moco_pool_transformers.specs import Spec

__all__ = ["Residency"]


@attrs.define(eq=False)
class Base:
    """One module in memory, with the adapters on it."""

    key: tuple[str, ...]
    device: str
    lock: Any = attrs.field(factory=threading.RLock)
    module: Any = None
    peft: Any = None
    size: int = 0
    used: float = 0.0
    pins: int = 0
    models: dict[tuple[str, int], LoadedModel] = attrs.field(factory=dict)
    names: set[str] = attrs.field(factory=set)
    adapter_layers: list[Any] = attrs.field(factory=list)
    active: str | None = ""


class Residency:
    """The loaded models of one engine. Thread-safe.

    ``budget`` bounds the bytes of weights per device; None takes 85 % of what is free when the first model is loaded.
    """

    def __init__(self, budget: int | None = None, *, trust_remote_code: bool = False) -> None:
        self.budget = budget
        self.trust_remote_code = trust_remote_code
        self.demand: Mapping[str, int] = {}
        self.loads = 0
        self._lock = threading.RLock()
        self._bases: dict[tuple[str, ...], Base] = {}
        self._free: dict[str, int] = {}

    def names(self) -> list[str]:
        """Return the names of the models in memory."""
        return sorted(n for b in self._bases.values() if b.module is not None for n in b.names)

    def free(self) -> None:
        """Drop every module that is not in use."""
        with self._lock:
            for base in self._bases.values():
                if not base.pins:
                    self._evict(base)

    @contextmanager
    def use(self, models: Sequence[Model]) -> Iterator[tuple[LoadedModel, ...]]:
        """Load, pin and lock. See :meth:`moco_pool_transformers.host.Host.use`."""
        with self._lock:
            bases = [self._base(m) for m in models]
            for base in bases:
                base.pins += 1
        try:
            with ExitStack() as stack:
                for base in sorted({id(b): b for b in bases}.values(), key=lambda b: b.key):
                    stack.enter_context(base.lock)
                yield tuple(self._open(m, b) for m, b in zip(models, bases, strict=True))
        finally:
            with self._lock:
                for base in bases:
                    base.pins -= 1
                    base.used = time.monotonic()

    def _base(self, model: Model) -> Base:
        spec: Spec = model.info["spec"]
        key = spec.base_key
        return self._bases.setdefault(key, Base(key, spec.device))

    def _open(self, model: Model, base: Base) -> LoadedModel:
        spec: Spec = model.info["spec"]
        if base.module is None:
            self._make_room(spec.base_bytes, base)
            base.module = self._load(spec, model.name)
            base.size = spec.base_bytes
            base.active = ""
        found = base.models.get((model.fingerprint, model.copy))
        if found is None:
            found = self._wrap(model, spec, base)
            base.models[model.fingerprint, model.copy] = found
        base.names.add(model.name)
        base.used = time.monotonic()
        return found

    def _wrap(self, model: Model, spec: Spec, base: Base) -> LoadedModel:
        tokenizer = AutoTokenizer.from_pretrained(
            spec.tokenizer_folder, trust_remote_code=self.trust_remote_code, local_files_only=True
        )
        if spec.template_text is not None:
            tokenizer.chat_template = spec.template_text
        renderer = Renderer(
            model.name,
            tokenizer,
            style=spec.style,
            overlong=spec.overlong,
            context=model.context_length,
            tags=spec.tags,
        )
        if spec.adapter:
            self._add_adapter(base, spec.adapter, spec.adapter_name)
        return LoadedModel(
            model,
            base.module,
            renderer,
            tags=spec.tags,
            activate=lambda: _activate(base, spec.adapter_name if spec.adapter else None),
        )

    def _load(self, spec: Spec, name: str) -> Any:
        self.loads += 1
        cls = AutoModelForSequenceClassification if spec.classifier else AutoModelForCausalLM
        try:
            with memory_errors(name):
                module = cls.from_pretrained(
                    spec.local_folder(),
                    dtype=getattr(torch, spec.dtype),
                    use_safetensors=True,
                    trust_remote_code=self.trust_remote_code,
                    local_files_only=True,
                )
                return module.to(spec.device).eval().requires_grad_(False)
        except OSError as error:
            text = str(error).splitlines()[0]
            raise ConfigError(f"model {name!r}: cannot load {spec.folder}: {text}") from error

    def _add_adapter(self, base: Base, folder: str, name: str) -> None:
        from peft import PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer

        # an own name per adapter: adapters called "default" overwrite each other silently
        if base.peft is None:
            base.peft = PeftModel.from_pretrained(base.module, folder, adapter_name=name, is_trainable=False)
        elif name not in base.peft.peft_config:
            base.peft.load_adapter(folder, adapter_name=name, is_trainable=False)
        base.module.requires_grad_(False).eval()
        base.adapter_layers = [m for m in base.module.modules() if isinstance(m, BaseTunerLayer)]
        base.active = ""

    def _make_room(self, need: int, base: Base) -> None:
        with self._lock:
            limit = self._limit(base.device)
            while True:
                resident = [b for b in self._bases.values() if b.module is not None and b.device == base.device]
                if not resident or sum(b.size for b in resident) + need <= limit:
                    return
                idle = [b for b in resident if not b.pins]
                if not idle:
                    raise EngineOutOfMemory(
                        f"models of {sum(b.size for b in resident) + need:,} bytes must be in memory together, "
                        f"the budget for {base.device} is {limit:,}; raise the pool option memory or use smaller models"
                    )
                # least useful: fewest calls waiting, then longest unused
                self._evict(min(idle, key=lambda b: (sum(self.demand.get(n, 0) for n in b.names), b.used)))

    def _limit(self, device: str) -> int:
        if self.budget is not None:
            return self.budget
        if device not in self._free:
            if device.startswith("cuda"):
                free = torch.cuda.mem_get_info(torch.device(device))[0]
            else:
                free = _available_memory()
            self._free[device] = int(0.85 * free)
        return self._free[device]

    def _evict(self, base: Base) -> None:
        for loaded in base.models.values():
            loaded.scratch.clear()
        base.models.clear()
        base.names.clear()
        base.adapter_layers = []
        base.module = base.peft = None
        base.size = 0
        if base.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _activate(base: Base, name: str | None) -> None:
    """Select an adapter, or none, in every adapted layer of a base; free if it is selected already."""
    if base.active == name or not base.adapter_layers:
        return
    for layer in base.adapter_layers:
        layer.enable_adapters(name is not None)
        if name is not None:
            layer.set_adapter([name])
    base.module.requires_grad_(False)
    base.active = name


def _available_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 8 << 30  # no way to know: assume a small machine
