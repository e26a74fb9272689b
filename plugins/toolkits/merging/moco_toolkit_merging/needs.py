"""What weight-level methods need of a pool: told from headers and options, before anything is loaded or asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moco_core import MocoError, Model, Needs
from moco_toolkit_checkpoints.fingerprints import read_header, read_json
from moco_toolkit_checkpoints.local import AdapterWeights
from moco_toolkit_merging.adapters import check_alike
from moco_toolkit_merging.compatibility import mismatch
from moco_toolkit_merging.engines import files_of
from moco_toolkit_merging.export import check_folder, read_record, written_size
from moco_toolkit_merging.rules import Composition

__all__ = ["check_export", "share_base", "strangers", "weight_needs"]


def weight_needs(
    *,
    min_models: int = 1,
    export: str = "",
    composition: Composition = "exact",
    check: Callable[[Sequence[Model]], Sequence[str]] | None = None,
    more: Sequence[str] = (),
    dense: bool = False,
    **fields: Any,
) -> Needs:
    """Return the needs of a method that merges all models of its pool; ``fields`` are further fields of Needs.

    ``check`` says what is wrong with the method's own options; ``composition`` is how it adds adapters of one base;
    ``export`` is the folder it will write; ``more`` are capabilities beside ``generate`` and ``weights``; ``dense`` methods
    make full weights of adapters too. The first thing that is wrong is reported, in one sentence.
    """

    def problems(pool: Sequence[Model]) -> list[str]:
        if len(pool) < min_models or (fields.get("same_base") and not share_base(pool)):
            return []  # the core says so
        found = list(check(pool)) if check is not None else []
        if not found and (difference := mismatch(pool) or _unlike(pool, composition)):
            found = [difference]
        return found or _unwritable(pool, export, dense)

    capabilities = frozenset({"generate", "weights", *more})
    return Needs(capabilities=capabilities, min_models=min_models, check=problems, **fields)


def share_base(models: Sequence[Model]) -> bool:
    """Return whether all models are LoRA adapters of one base, so that their merge can stay an adapter."""
    return bool(models) and all(m.adapter for m in models) and len({m.base for m in models}) == 1


def strangers(models: Sequence[Model], base: Model) -> list[str]:
    """Return the first adapter, as a sentence, that was not trained on ``base``; empty where the pool does not tell."""
    root = base.base if base.adapter else files_of(base).base
    other = next((m for m in models if m.adapter and root and m.base != root), None)
    if other is None:
        return []
    return [f"model {other.name!r} is an adapter on another base than {base.name!r}; name the base it was trained on"]


def check_export(models: Sequence[Model], export: str, dense: bool = False) -> None:
    """Raise ConfigError if the folder ``export`` cannot take the merge of ``models``.

    A folder that holds a merge of these models is left to the end, when it is known whether it is the same one.
    """
    if not export:
        return
    record = read_record(Path(export))
    known = {f for m in models for f in (m.fingerprint, m.base)}
    held = [s.get("fingerprint") for s in record.get("merge", {}).get("sources", ())]
    if not held or not known.issuperset(held):
        check_folder(Path(export), written_size(models, dense=dense or not share_base(models)))


def _unwritable(models: Sequence[Model], export: str, dense: bool) -> list[str]:
    try:
        check_export(models, export, dense)
    except MocoError as error:
        return [f"option export: {error}"]
    return []


def _unlike(models: Sequence[Model], composition: Composition) -> str:
    """Return why adapters of one base do not combine, from their configurations and headers."""
    folders = [folder for m in models if (folder := files_of(m).adapter) is not None]
    if not share_base(models) or len(folders) < len(models):
        return ""
    found = []
    for folder in folders:
        shapes = read_header(folder / "adapter_model.safetensors")
        found.append(
            AdapterWeights(
                config=read_json(folder / "adapter_config.json"),
                # embeddings or a head that stand beside their factors are compared with the base's when they are read
                tensors={n: _Shaped(shape) for n, (_, shape) in shapes.items() if not n.endswith(".base_layer.weight")},
            )
        )
    try:
        check_alike(found, [m.name for m in models], composition)
    except MocoError as error:
        return str(error)
    return ""


class _Shaped:
    """A tensor of which only the shape is known."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def dim(self) -> int:
        return len(self.shape)
