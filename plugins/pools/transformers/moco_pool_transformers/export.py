"""Models written to disk as ordinary checkpoints: beside their place, then renamed, so that they are complete or absent."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import attrs
from safetensors import SafetensorError

from moco_core.errors import CapabilityError, ConfigError, StoreError
from moco_core.models import Model
from moco_toolkit_checkpoints.adapters import placed_by_tensors
from moco_toolkit_checkpoints.describe import TRAINING
from moco_toolkit_checkpoints.files import copy_files
from moco_toolkit_checkpoints.specs import Spec

__all__ = ["export"]

SHARD = 4 << 30


def export(model: Model, folder: Path) -> None:
    """Write a model as an ordinary checkpoint. See :meth:`moco_toolkit_checkpoints.local.LocalEngine.export`."""
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
    if not spec.computed and (record := Path(spec.adapter) / TRAINING).exists():
        shutil.copyfile(record, folder / TRAINING)
    if spec.tokenizer_folder != spec.folder:
        copy_files(Path(spec.tokenizer_folder), folder)


def _write_weights(model: Model, spec: Spec, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from moco_pool_transformers.weights import weights_of

    source = Path(spec.local_folder())
    for path in source.glob("*.json"):
        if path.name not in ("model.safetensors.index.json", "adapter_config.json"):
            shutil.copyfile(path, folder / path.name)
    copy_files(Path(spec.tokenizer_folder), folder)
    weights = weights_of(model)
    stored = str(weights.config.get("dtype") or weights.config.get("torch_dtype") or spec.dtype).removeprefix("torch.")
    dtype = getattr(torch, stored)
    held: dict[str, torch.Tensor] = {}
    names: list[list[str]] = []
    total = size = 0

    def flush() -> None:
        stored = weights.files.as_stored(held)
        kept = {k: t.contiguous().clone() for k, t in stored.items()}  # parts of one tensor do not share memory
        save_file(kept, str(folder / f"part-{len(names):05d}.safetensors"), metadata={"format": "pt"})
        names.append(list(kept))
        held.clear()

    for name in weights.names:
        if size >= SHARD and _layer(name) != _layer(next(reversed(held))):
            flush()  # about one shard is in memory; what the source has as one tensor lies in one layer
            size = 0
        tensor = weights.get(name).detach().cpu()
        held[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        size += held[name].nbytes
        total += held[name].nbytes
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


def _layer(name: str) -> str:
    """Return the part of a tensor's name up to its layer's number."""
    found = re.match(r".*?\.\d+\.", name)
    return found[0] if found else ""
