"""Models made from others: described here, opened by :mod:`moco_pool_transformers.residency`, written to disk here."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from safetensors import SafetensorError

from moco_core.errors import CapabilityError, ConfigError, StoreError
from moco_core.models import Engine, Model, Recipe
from moco_core.options import build
from moco_core.types import digest
from moco_pool_transformers.describe import describe, model_of
from moco_pool_transformers.options import Entry
from moco_toolkit_checkpoints.adapters import placed_by_tensors
from moco_toolkit_checkpoints.specs import Spec

__all__ = ["derive", "export"]

SHARD = 4 << 30


def derive(engine: Engine, name: str, recipe: Recipe, sources: Sequence[Model]) -> Model:
    """Describe the model that ``recipe`` makes out of ``sources``; nothing is computed yet.

    Raises CapabilityError if the recipe is none of :mod:`moco_core.local`, or the sources cannot serve it.
    """
    if not sources:
        raise CapabilityError(f"{name}: a derived model needs at least one source")
    common: dict[str, Any] = {
        "name": name,
        "engine": engine,
        "fingerprint": digest("derived", recipe.fingerprint),
        "description": str(getattr(recipe, "description", "")),
        "tokenizer": sources[0].tokenizer,
        "context_length": min((s.context_length for s in sources if s.context_length), default=None),
        "lane": sources[0].lane,
        "recipe": recipe,
        "sources": tuple(sources),
    }
    kind = getattr(recipe, "kind", None)
    if kind == "checkpoint":
        return _checkpoint(engine, name, recipe, sources)
    if kind == "adapter":
        return _adapter(name, sources, common)
    if kind == "weights":
        return _merged(name, sources, common)
    if kind == "serving":
        members = {s.fingerprint: s for s in sources}.values()
        return Model(
            **common,
            capabilities=frozenset(getattr(recipe, "capabilities", ("generate", "logprobs"))),
            parameters=sum(s.parameters or 0 for s in members),
            memory=sum(s.memory or 0 for s in members),
        )
    raise CapabilityError(
        f"{name}: {type(recipe).__name__} is of kind {kind!r}, which is none of checkpoint, adapter, weights, serving"
    )


def _checkpoint(engine: Any, name: str, recipe: Any, sources: Sequence[Model]) -> Model:
    spec = _spec(name, sources[0])
    given = dict(recipe.checkpoint(sources))
    given.setdefault("dtype", spec.dtype)
    entry = build(Entry, {**given, "name": name}, path=name)
    described = describe(entry, engine.options, name)
    model = model_of(described, entry, name, engine, [given.get("device") or spec.device])
    return attrs.evolve(model, recipe=recipe, sources=tuple(sources))


def _adapter(name: str, sources: Sequence[Model], common: dict[str, Any]) -> Model:
    bases = {s.base or _spec(name, s).base_print for s in sources}
    if len(bases) != 1:
        raise CapabilityError(
            f"{name}: its sources ({', '.join(s.name for s in sources)}) are adapters of {len(bases)} different bases; "
            "choose adapters trained on one base"
        )
    first = next((s for s in sources if s.adapter), sources[0])
    spec = attrs.evolve(_spec(name, first), adapter="(computed)", adapter_key=common["fingerprint"], computed=True)
    common["info"] = {"spec": spec}
    return Model(
        **common,
        capabilities=first.capabilities,
        architecture=first.architecture,
        base=next(iter(bases)),
        adapter=True,
        parameters=first.parameters,
        memory=first.memory,
    )


def _merged(name: str, sources: Sequence[Model], common: dict[str, Any]) -> Model:
    lacking = next((s for s in sources if not s.can("weights")), None)
    if lacking is not None:
        raise CapabilityError(f"{name}: model {lacking.name!r} cannot give its weights (capability 'weights')")
    first = sources[0]
    other = next((s for s in sources if s.architecture != first.architecture), None)
    if other is not None:
        raise CapabilityError(
            f"{name}: {first.name!r} and {other.name!r} do not share an architecture; "
            "choose checkpoints of one architecture and size"
        )
    spec = _spec(name, first)
    # one evaluation module per architecture, configuration, type and device, for all candidates
    spec = attrs.evolve(
        spec,
        adapter="",
        adapter_key="",
        computed=True,
        base_print=common["fingerprint"],
        base_key=("merged", first.architecture, spec.config_print, spec.dtype, spec.device),
    )
    common["info"] = {"spec": spec}
    return Model(
        **common,
        capabilities=first.capabilities,
        architecture=first.architecture,
        parameters=first.parameters,
        memory=spec.base_bytes,
    )


def _spec(name: str, model: Model) -> Spec:
    spec = model.info.get("spec")
    if not isinstance(spec, Spec):
        raise CapabilityError(
            f"{name}: model {model.name!r} is itself a decoding loop and cannot be a source of weights"
        )
    return spec


def export(model: Model, folder: Path) -> None:
    """Write a model as an ordinary checkpoint. See :meth:`moco_core.local.LocalEngine.export`."""
    spec = model.info.get("spec")
    if not isinstance(spec, Spec):
        raise CapabilityError(
            f"model {model.name!r} is a decoding loop over others, not weights; it cannot be written to disk"
        )
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: not empty; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if model.adapter:
            _write_adapter(model, spec, beside)
        else:
            _write_weights(model, spec, beside)
        if folder.exists():
            folder.rmdir()
        beside.chmod(0o755)
        os.replace(beside, folder)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{folder}: cannot be written: {_reason(error)}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _reason(error: OSError | SafetensorError) -> str:
    """Return what the system said, without the library's words around it."""
    text = getattr(error, "strerror", None) or str(error)
    return re.sub(r"^.*I/O error: | \(os error \d+\)$", "", text)


def _write_adapter(model: Model, spec: Spec, folder: Path) -> None:
    from safetensors.torch import save_file

    from moco_pool_transformers.weights import adapter_of, read_adapter

    if spec.computed:
        adapter = adapter_of(model)
        adapter = attrs.evolve(
            adapter, config=placed_by_tensors(adapter.config, {k: t.shape for k, t in adapter.tensors.items()})
        )
    else:
        adapter = read_adapter(Path(spec.adapter))
    config = {**adapter.config, "base_model_name_or_path": spec.repo or spec.folder}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    tensors = {k: t.detach().cpu().contiguous().clone() for k, t in adapter.tensors.items()}
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    if spec.tokenizer_folder != spec.folder:
        _copy_small(Path(spec.tokenizer_folder), folder)


def _write_weights(model: Model, spec: Spec, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from moco_pool_transformers.weights import weights_of

    source = Path(spec.local_folder())
    for path in source.glob("*.json"):
        if path.name not in ("model.safetensors.index.json", "adapter_config.json"):
            shutil.copy(path, folder / path.name)
    _copy_small(Path(spec.tokenizer_folder), folder)
    weights = weights_of(model)
    stored = str(weights.config.get("dtype") or weights.config.get("torch_dtype") or spec.dtype).removeprefix("torch.")
    dtype = getattr(torch, stored)
    held: dict[str, torch.Tensor] = {}
    names: list[list[str]] = []

    def flush() -> None:
        save_file(held, str(folder / f"part-{len(names):05d}.safetensors"), metadata={"format": "pt"})
        names.append(list(held))
        held.clear()

    total = 0
    for name in weights.names:
        tensor = weights.get(name).detach().cpu()
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        held[name] = tensor.contiguous().clone()
        total += tensor.nbytes
        if sum(t.nbytes for t in held.values()) >= SHARD:  # at most one shard is in memory
            flush()
    if held or not names:
        flush()
    if len(names) == 1:
        os.replace(folder / "part-00000.safetensors", folder / "model.safetensors")
        return
    mapping: dict[str, str] = {}
    for i, members in enumerate(names):
        final = f"model-{i + 1:05d}-of-{len(names):05d}.safetensors"
        os.replace(folder / f"part-{i:05d}.safetensors", folder / final)
        mapping |= dict.fromkeys(members, final)
    index = {"metadata": {"total_size": total}, "weight_map": mapping}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")


def _copy_small(source: Path, folder: Path) -> None:
    """Copy tokenizer files and chat template."""
    patterns = (
        "tokenizer*",
        "special_tokens_map.json",
        "*.jinja",
        "vocab*",
        "merges.txt",
        "*.model",
        "added_tokens.json",
    )
    for pattern in patterns:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copy(path, folder / path.name)
