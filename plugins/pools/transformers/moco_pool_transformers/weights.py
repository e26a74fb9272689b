"""Reading parameters lazily: from files, with an adapter merged in, or computed by a recipe."""

from __future__ import annotations

import functools
import math
import re
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from moco_core.errors import CapabilityError, ConfigError
from moco_core.local import AdapterWeights, Weights
from moco_core.models import Model
from moco_toolkit_checkpoints.fingerprints import read_header, read_json
from moco_toolkit_checkpoints.specs import Spec, weight_files

__all__ = ["LOADING", "adapter_of", "weights_of"]

LOADING = threading.RLock()
"""Held while modules are built: the libraries switch state of the whole process meanwhile, and engines have threads of their
own. Two that load at once would find their parameters on the device ``meta``."""


def weights_of(model: Model, opened: MutableMapping[str, Weights] | None = None) -> Weights:
    """See :meth:`moco_core.local.Host.weights`. ``opened`` keeps what lies in files open between calls."""
    if opened is not None and model.fingerprint in opened:
        return opened[model.fingerprint]
    recipe = model.info.get("recipe")
    spec: Spec | None = model.info.get("spec")
    if spec is None or not model.can("weights"):
        raise CapabilityError(f"model {model.name!r} has no weights of its own (capability 'weights')")
    if recipe is not None and hasattr(recipe, "tensor"):
        return ComputedWeights(model, recipe, opened)
    found: Weights = FileWeights(model, spec)
    if model.adapter:
        found = MergedWeights(found, adapter_of(model))
    if opened is not None and recipe is None:
        opened[model.fingerprint] = found
    return found


def adapter_of(model: Model, opened: MutableMapping[str, AdapterWeights] | None = None) -> AdapterWeights:
    """See :meth:`moco_core.local.Host.adapter_weights`. ``opened`` keeps what lies in files between calls."""
    if opened is not None and model.fingerprint in opened:
        return opened[model.fingerprint]
    if not model.adapter:
        raise CapabilityError(f"model {model.name!r} is not a LoRA adapter")
    recipe = model.info.get("recipe")
    if recipe is not None and hasattr(recipe, "adapter"):
        found: AdapterWeights = recipe.adapter([source_adapter(s, opened) for s in model.info["sources"]])
        return found
    folder = Path(model.info["spec"].adapter)
    found = AdapterWeights(
        config=read_json(folder / "adapter_config.json"),
        tensors=load_file(str(folder / "adapter_model.safetensors")),
    )
    if opened is not None:
        opened[model.fingerprint] = found
    return found


def source_adapter(model: Model, opened: MutableMapping[str, AdapterWeights] | None = None) -> AdapterWeights:
    """Return a source of an adapter recipe; the base itself comes as an adapter without tensors."""
    return adapter_of(model, opened) if model.adapter else AdapterWeights(config={}, tensors={})


class FileWeights:
    """A checkpoint's own tensors, memory-mapped; read through the module where file names and module names differ."""

    def __init__(self, model: Model, spec: Spec) -> None:
        self.model = model
        self._spec = spec
        self._folder = Path(spec.local_folder())
        self.config: Mapping[str, Any] = read_json(self._folder / "config.json")
        self._where: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._open: dict[Path, Any] = {}
        for path in weight_files(self._folder):
            for name, (_, shape) in read_header(path).items():
                self._where[name], self._shapes[name] = path, shape
        skeleton = _skeleton(self._folder, spec.classifier)
        self.names: Sequence[str] = list(skeleton)
        self._module: dict[str, Tensor] | None = None
        if any(self._shapes.get(n) != s for n, s in skeleton.items()):
            self._module = _through_module(self._folder, spec.classifier)
            self._shapes = {n: tuple(t.shape) for n, t in self._module.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def get(self, name: str) -> Tensor:
        if self._module is not None:
            return self._module[name]
        path = self._where[name]
        if path not in self._open:
            self._open[path] = safe_open(str(path), framework="pt")
        tensor: Tensor = self._open[path].get_tensor(name)
        return tensor


def _skeleton(folder: Path, classifier: bool) -> Mapping[str, tuple[int, ...]]:
    """Return the names and shapes of a checkpoint's module, in order, tied tensors once, without allocating it."""
    return _shapes(folder, classifier, (folder / "config.json").stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)  # building even an empty module takes longer than merging a small one's weights
def _shapes(folder: Path, classifier: bool, changed: int) -> Mapping[str, tuple[int, ...]]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    cls: Any = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    with LOADING, torch.device("meta"):
        module = cls.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
        module.tie_weights()
    return {n: tuple(t.shape) for n, t in state_of(module).items()}


def state_of(module: Any) -> dict[str, Tensor]:
    """Return a module's parameters (tied ones once) and persistent buffers, by name."""
    state: dict[str, Tensor] = dict(module.named_parameters())
    kept = module.state_dict(keep_vars=True)
    state |= {n: b for n, b in module.named_buffers() if n in kept}
    return state


def _through_module(folder: Path, classifier: bool) -> dict[str, Tensor]:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    cls = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    with LOADING:
        module = cls.from_pretrained(folder, dtype="auto", use_safetensors=True, local_files_only=True)
    return {n: t.detach() for n, t in state_of(module).items()}


class MergedWeights:
    """A base with a LoRA adapter merged in, tensor by tensor: W + scale * B A, in float32.

    Adapters that are not plain low-rank sums (DoRA, trained biases, saved modules) are refused: merge them with peft first.
    """

    def __init__(self, base: Weights, adapter: AdapterWeights) -> None:
        self._base, self._adapter = base, adapter
        self.model, self.config, self.names = base.model, base.config, base.names
        odd = [k for k in adapter.tensors if not re.search(r"\.lora_[AB](\.[\w-]+)?\.weight$", k)]
        if odd or adapter.config.get("use_dora"):
            raise CapabilityError(
                f"model {base.model.name!r}: its adapter is more than a low-rank sum "
                f"({odd[0] if odd else 'DoRA'}); merge it into a full checkpoint first"
            )
        self._pairs: dict[str, list[Tensor | None]] = {}
        for key, tensor in adapter.tensors.items():
            path = key.removeprefix("base_model.model.")
            module, _, letter = re.sub(r"\.lora_([AB])(\.[\w-]+)?\.weight$", r"|\1", path).partition("|")
            self._pairs.setdefault(f"{module}.weight", [None, None])[letter == "B"] = tensor
        lost = set(self._pairs) - set(self.names)
        if lost:
            raise ConfigError(
                f"model {base.model.name!r}: its adapter changes {min(lost)}, which its base does not have"
            )

    def shape(self, name: str) -> tuple[int, ...]:
        return self._base.shape(name)

    def get(self, name: str) -> Tensor:
        tensor: Tensor = self._base.get(name)
        pair = self._pairs.get(name)
        if pair is None or pair[0] is None or pair[1] is None:
            return tensor
        a, b = pair[0].float(), pair[1].float()
        if tensor.shape[::-1] == (b.shape[0], a.shape[1]) and self._adapter.config.get("fan_in_fan_out"):
            delta = (b @ a).T
        elif "embed" in name and tensor.shape == (a.shape[1], b.shape[0]):
            delta = (b @ a).T  # adapters on embeddings are stored transposed
        else:
            delta = b @ a
        return tensor.float() + self._scale(name, a.shape[0]) * delta

    def _scale(self, name: str, rank: int) -> float:
        config = self._adapter.config
        alpha = config.get("lora_alpha", rank)
        module = name.removesuffix(".weight")
        for pattern, value in (config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
        return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


class ComputedWeights:
    """What a weight recipe makes of its sources."""

    def __init__(self, model: Model, recipe: Any, opened: MutableMapping[str, Weights] | None = None) -> None:
        self.model = model
        self._recipe = recipe
        self._sources = [weights_of(s, opened) for s in model.info["sources"]]
        self.config, self.names = self._sources[0].config, self._sources[0].names

    def shape(self, name: str) -> tuple[int, ...]:
        return self._sources[0].shape(name)

    def get(self, name: str) -> Tensor:
        with self._told(name):
            tensor: Tensor = self._recipe.tensor(name, self._sources)
        if tuple(tensor.shape) != self.shape(name):
            raise ConfigError(
                f"model {self.model.name!r}: its recipe gave shape {tuple(tensor.shape)} for {name}, "
                f"expected {self.shape(name)}"
            )
        return tensor

    def write(self, name: str, out: Tensor) -> None:
        """Write a tensor of the result into ``out`` in place, cast once."""
        write = getattr(self._recipe, "write", None)
        with self._told(name):
            if write is not None and write(name, self._sources, out):
                return
        out.copy_(self.get(name))

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise ConfigError(f"model {self.model.name!r}: cannot compute {name}: {error}") from error
