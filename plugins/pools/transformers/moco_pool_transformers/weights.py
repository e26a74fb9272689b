"""Reading parameters lazily: from files, with an adapter merged in, or computed by a recipe."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import attrs
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from moco_core.errors import CapabilityError, ConfigError
from moco_core.models import Model
from moco_toolkit_checkpoints.adapters import FACTOR, beyond_factors, scale
from moco_toolkit_checkpoints.fingerprints import read_header, read_json
from moco_toolkit_checkpoints.local import AdapterWeights, Weights
from moco_toolkit_checkpoints.specs import Spec, weight_files
from moco_toolkit_checkpoints.transformers import AutoConfig, library, revert_weight_conversion

if TYPE_CHECKING:
    from moco_toolkit_checkpoints.local import AdapterRecipe, WeightRecipe

__all__ = ["LOADING", "StoredWeights", "adapter_of", "auto_class", "read_adapter", "weights_of"]

LOADING = threading.RLock()
"""Held while modules are built: the libraries switch state of the whole process meanwhile, and engines have threads of their
own. Two that load at once would find their parameters on the device ``meta``."""


class StoredWeights(Weights, Protocol):
    """Weights that know which checkpoint's form they have."""

    @property
    def files(self) -> FileWeights: ...


def weights_of(model: Model, opened: MutableMapping[str, StoredWeights] | None = None) -> StoredWeights:
    """See :meth:`LocalEngine.weights`. ``opened`` keeps what lies in files open between calls."""
    if opened is not None and model.fingerprint in opened:
        return opened[model.fingerprint]
    spec: Spec | None = model.info.get("spec")
    if spec is None or not model.can("weights"):
        raise CapabilityError(f"model {model.name!r} has no weights of its own (capability 'weights')")
    kind = model.recipe.kind if model.recipe is not None else "checkpoint"
    if kind == "weights":
        return ComputedWeights(model, opened)
    files = FileWeights(model, spec)
    found: StoredWeights = _merged(files, spec, model) if model.adapter else files
    if opened is not None and kind == "checkpoint":
        opened[model.fingerprint] = found
    return found


def adapter_of(model: Model, opened: MutableMapping[str, AdapterWeights] | None = None) -> AdapterWeights:
    """See :meth:`LocalEngine.adapter_weights`. ``opened`` keeps what lies in files between calls."""
    if opened is not None and model.fingerprint in opened:
        return opened[model.fingerprint]
    if not model.adapter:
        raise CapabilityError(f"model {model.name!r} is not a LoRA adapter")
    if model.recipe is not None and model.recipe.kind == "adapter":
        return cast("AdapterRecipe", model.recipe).adapter([source_adapter(s, opened) for s in model.sources])
    found = _factors(model)
    if opened is not None:
        opened[model.fingerprint] = found
    return found


def read_adapter(folder: Path) -> AdapterWeights:
    """Return the adapter in a folder, whatever it consists of."""
    return AdapterWeights(
        config=read_json(folder / "adapter_config.json"),
        tensors=load_file(str(folder / "adapter_model.safetensors")),
    )


def _factors(model: Model) -> AdapterWeights:
    """Return a plain adapter of files; CapabilityError names what another one has beside its factors."""
    spec: Spec = model.info["spec"]
    found = read_adapter(Path(spec.adapter))
    beside = [k for k in found.tensors if k.endswith(".base_layer.weight")]
    if beside:  # peft stores the embedding or head that factors were put on, changed or not
        base = FileWeights(model, spec)
        same = {k for k in beside if _is_the_bases(found.tensors[k], k, base)}
        found = attrs.evolve(found, tensors={k: t for k, t in found.tensors.items() if k not in same})
    if more := beyond_factors(found.config, found.tensors):
        raise CapabilityError(
            f"model {model.name!r}: its adapter is more than a low-rank sum: {more}; merge it into full weights first"
        )
    return found


def _is_the_bases(tensor: Tensor, key: str, base: Weights) -> bool:
    name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
    if name not in base.names and "embed" not in name:  # a tied head is the embedding
        name = next((n for n in base.names if "embed" in n and base.shape(n) == tuple(tensor.shape)), name)
    if name not in base.names or base.shape(name) != tuple(tensor.shape):
        return False
    return torch.equal(base.get(name).to(tensor.dtype), tensor)


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
        skeleton = _skeleton(self._folder, spec.loader)
        self.names: Sequence[str] = list(skeleton)
        self._module: dict[str, Tensor] | None = None
        self._conversions: Any = None
        if any(self._shapes.get(n) != s for n, s in skeleton.items()):
            self._module, self._conversions = _through_module(self._folder, spec.loader)
            self._shapes = {n: tuple(t.shape) for n, t in self._module.items()}

    @property
    def files(self) -> FileWeights:
        return self

    def as_stored(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of a module under the names, and in the parts, that the checkpoint's files have.

        What the files have as one tensor must come together.
        """
        if self._module is None:
            return state
        shell = _shell(self._folder, self._spec.loader)
        shell._weight_conversions = self._conversions
        found: dict[str, Tensor] = revert_weight_conversion(shell, state)
        return found

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


def _skeleton(folder: Path, loader: str) -> Mapping[str, tuple[int, ...]]:
    """Return the names and shapes of a checkpoint's module, in order, tied tensors once, without allocating it."""
    return _shapes(folder, loader, (folder / "config.json").stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)  # building even an empty module takes longer than merging a small one's weights
def _shapes(folder: Path, loader: str, changed: int) -> Mapping[str, tuple[int, ...]]:
    return {n: tuple(t.shape) for n, t in state_of(_shell(folder, loader)).items()}


def _shell(folder: Path, loader: str) -> Any:
    """Return a checkpoint's module without its tensors."""
    with LOADING, torch.device("meta"):
        module = auto_class(loader).from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
        module.tie_weights()
    return module


def state_of(module: Any) -> dict[str, Tensor]:
    """Return a module's parameters (tied ones once) and persistent buffers, by name."""
    state: dict[str, Tensor] = dict(module.named_parameters())
    kept = module.state_dict(keep_vars=True)
    state |= {n: b for n, b in module.named_buffers() if n in kept}
    return state


def _through_module(folder: Path, loader: str) -> tuple[dict[str, Tensor], Any]:
    """Return a checkpoint's tensors by the names in its module, and how the library got there."""
    with LOADING:
        module = _loaded(folder, loader, "auto")
    return {n: t.detach() for n, t in state_of(module).items()}, module._weight_conversions


def auto_class(loader: str) -> Any:
    """Return transformers' class of that name."""
    return getattr(library, loader)


def _loaded(folder: Path, loader: str, dtype: Any) -> Any:
    return auto_class(loader).from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)


def _merged(base: FileWeights, spec: Spec, model: Model) -> StoredWeights:
    """Return a base with an adapter merged in: from the factors where that is all there is, else by peft."""
    if spec.computed:
        return MergedWeights(base, adapter_of(model))
    try:
        return MergedWeights(base, _factors(model))
    except CapabilityError:
        return PeftWeights(base, spec)


class MergedWeights:
    """A base with a plain LoRA adapter merged in, tensor by tensor: W + scale * B A, in float32."""

    def __init__(self, base: FileWeights, adapter: AdapterWeights) -> None:
        self._base, self._adapter, self.files = base, adapter, base.files
        self.model, self.config, self.names = base.model, base.config, base.names
        self._pairs: dict[str, dict[str, Tensor]] = {}
        for key, tensor in adapter.tensors.items():
            match = FACTOR.match(key.removesuffix(".weight"))
            if match is None or ".lora_embedding_" in key:
                raise CapabilityError(f"model {base.model.name!r}: {key} is no factor of a linear module")
            self._pairs.setdefault(f"{match[1]}.weight", {})[match[2]] = tensor
        lost = set(self._pairs) - set(self.names)
        if lost:
            raise CapabilityError(
                f"model {base.model.name!r}: its adapter changes {min(lost)}, which its base does not have on its own"
            )

    def shape(self, name: str) -> tuple[int, ...]:
        return self._base.shape(name)

    def get(self, name: str) -> Tensor:
        tensor: Tensor = self._base.get(name)
        pair = self._pairs.get(name, {})
        if len(pair) < 2:
            return tensor
        a, b = pair["A"].float(), pair["B"].float()
        delta = b @ a
        square = delta.shape[0] == delta.shape[1]
        if tensor.shape != delta.shape or (square and self._adapter.config.get("fan_in_fan_out")):
            delta = delta.T  # some modules keep their weight transposed
        return tensor.float() + scale(self._adapter.config, name.removesuffix(".weight"), a.shape[0]) * delta


class PeftWeights:
    """A base with an adapter of any kind merged in by peft, in float32; the whole module is in memory."""

    def __init__(self, base: FileWeights, spec: Spec) -> None:
        self._spec, self.files = spec, base
        self.model, self.config, self.names = base.model, base.config, base.names
        self._shapes = {n: base.shape(n) for n in base.names}

    @functools.cached_property
    def _state(self) -> dict[str, Tensor]:
        from peft import PeftModel

        with LOADING, torch.random.fork_rng([]):
            torch.manual_seed(0)
            module = _loaded(Path(self._spec.local_folder()), self._spec.loader, torch.float32)
            wrapped = PeftModel.from_pretrained(module, self._spec.adapter).eval()
            before = _probe(wrapped)
            merged = wrapped.merge_and_unload()
            after = _probe(merged)
        state = {n: t.detach() for n, t in state_of(merged).items()}
        alike = {n: tuple(t.shape) for n, t in state.items()} == self._shapes
        if not alike or not torch.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.abs().max())):
            raise CapabilityError(
                f"model {self.model.name!r}: its adapter does not merge into the parameters its base has (it changes one of "
                "two tied weights, or adds rows or layers)"
            )
        return state

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def get(self, name: str) -> Tensor:
        return self._state[name]


def _probe(module: Any) -> Tensor:
    """Return what a module makes of a few tokens."""
    ids = torch.arange(8)[None] % int(module.get_input_embeddings().weight.shape[0])
    with torch.inference_mode():
        logits: Tensor = module(input_ids=ids, use_cache=False).logits
    return logits


class ComputedWeights:
    """What a weight recipe makes of its sources."""

    def __init__(self, model: Model, opened: MutableMapping[str, StoredWeights] | None = None) -> None:
        self.model = model
        self._recipe = cast("WeightRecipe", model.recipe)
        self._sources = [weights_of(s, opened) for s in model.sources]
        self.config, self.names = self._sources[0].config, self._sources[0].names

    @property
    def files(self) -> FileWeights:
        """The checkpoint whose form the result has."""
        return self._sources[0].files

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
