"""Checkpoints on disk, merged tensor by tensor: bounded memory, atomic output.

Sources are read through memory maps, one shard of each at a time; every tensor of the result is written straight to its
place in the output file, so that neither a source nor an output shard is ever held in memory as a whole.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from torch import Tensor

from moco_core import CapabilityError
from moco_toolkit_checkpoints.files import TOKENIZER, copy_files
from moco_toolkit_merging.comparison import compare
from moco_toolkit_merging.export import RECIPE_FILE, check_folder, read_fingerprint, written_beside
from moco_toolkit_merging.folders import STORED, FolderWeights
from moco_toolkit_merging.operations import dump_operation
from moco_toolkit_merging.recipes import MergeRecipe
from moco_toolkit_merging.rules import Operation
from moco_toolkit_merging.vocabulary import compare_ends, compare_vocabularies

__all__ = ["merge_folders"]

_CODES = {torch_name: code for code, torch_name in STORED.items()}
_BLOCK = 1 << 20  # entries combined at once where the operation allows it: temporaries stay in the processor's cache


class _Rows:
    """Some rows of a source, for operations that work entry by entry."""

    def __init__(self, weights: FolderWeights, start: int, stop: int) -> None:
        self._weights, self._range, self.folder = weights, (start, stop), weights.folder

    def shape(self, name: str) -> tuple[int, ...]:
        return (self._range[1] - self._range[0], *self._weights.shape(name)[1:])

    def get(self, name: str) -> Tensor:
        return self._weights.rows(name, *self._range)


def merge_folders(
    operation: Operation,
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    dtype: str = "",
    shard_size: int = 5_000_000_000,
    names: Sequence[str] | None = None,
) -> list[str]:
    """Merge checkpoint folders into a new one, streamed, and return the warnings of the compatibility report.

    The first folder gives configuration, tokenizer and template; an operation with a base takes the last one as base.
    ``dtype`` is the output's (``float32``, ``bfloat16``, ...; default: as stored in the first). Arithmetic is float32 with
    one cast. Peak memory is the mapped pages of one shard per source plus a few blocks of the tensor at hand.

    Rows of the vocabulary that only some sources have (padding) are taken from the first; ids that mean different tokens are
    refused. Where some sources tie their embeddings and others do not, the result is untied. Raises CapabilityError for
    sources that cannot be merged, with the first mismatch, ConfigError for a folder that cannot take the result, and
    ExportFailed if writing fails; then nothing is left behind.
    """
    paths = [Path(f) for f in folders]
    labels = list(names or [p.name for p in paths])
    sources = [FolderWeights(p) for p in paths]
    operation.check(len(sources))
    untie = _align_ties(sources)
    report = compare(sources, labels, padding=True)
    mismatch, warnings = report.mismatch, list(report.warnings)
    if not mismatch:
        mismatch, more = compare_vocabularies(paths, labels)
        warnings += [*more, *compare_ends(paths, labels)]
    if mismatch:
        raise CapabilityError(f"checkpoints cannot be merged: {mismatch}")
    recipe = MergeRecipe(operation=operation, sources=[s.fingerprint() for s in sources])
    wanted = getattr(torch, dtype) if dtype else None
    plan = _plan(sources[0], wanted, shard_size)
    size = sum(p.size for shard in plan for p in shard)
    target = Path(out)
    if not check_folder(target, size, recipe.fingerprint):
        return warnings
    record = {
        "fingerprint": recipe.fingerprint,
        "operation": dump_operation(operation),
        "sources": [str(p) for p in paths],
    }
    try:
        with written_beside(target) as beside:
            beside.mkdir(parents=True)
            _small_files(paths[0], sources[0].config, beside, wanted, untie)
            _write(plan, sources, recipe, beside)
            (beside / RECIPE_FILE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")
            (beside / "README.md").write_text(_card(target.name, record), "utf-8")
    except ValueError as error:
        raise CapabilityError(f"checkpoints cannot be merged: {error}") from error
    finally:
        for source in sources:
            source.close()
    assert read_fingerprint(target) == recipe.fingerprint
    return warnings


@attrs.frozen
class _Planned:
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _plan(first: FolderWeights, wanted: torch.dtype | None, shard_size: int) -> list[list[_Planned]]:
    """Cut the result's tensors into shards, in the order of the first source's files."""
    shards: list[list[_Planned]] = [[]]
    room = shard_size
    for name in first.names:
        stored: torch.dtype = getattr(torch, first.stored(name))
        item = _Planned(name, first.shape(name), wanted if wanted is not None and stored.is_floating_point else stored)
        if item.size > room and shards[-1]:
            shards.append([])
            room = shard_size
        shards[-1].append(item)
        room -= item.size
    return shards


def _write(
    plan: Sequence[Sequence[_Planned]], sources: Sequence[FolderWeights], recipe: MergeRecipe, folder: Path
) -> None:
    """Write the shards: header first, since all shapes are known, then every tensor in its place."""
    where: dict[str, str] = {}
    buffers: dict[torch.dtype, Tensor] = {}
    for number, shard in enumerate(plan):
        file = "model.safetensors" if len(plan) == 1 else f"model-{number + 1:05d}-of-{len(plan):05d}.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for item in shard:
            header[item.name] = {
                "dtype": _CODES[str(item.dtype).removeprefix("torch.")],
                "shape": list(item.shape),
                "data_offsets": [offset, offset + item.size],
            }
            offset += item.size
            where[item.name] = file
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for item in shard:
                for piece in _pieces(item, sources, recipe, buffers):
                    raw = piece.to(item.dtype).contiguous().reshape(-1).view(torch.uint8)
                    out.write(raw.numpy().data)
    if len(plan) > 1:
        total = sum(i.size for s in plan for i in s)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8"
        )


def _pieces(
    item: _Planned, sources: Sequence[FolderWeights], recipe: MergeRecipe, buffers: dict[torch.dtype, Tensor]
) -> Iterator[Tensor]:
    """Yield the result's rows in order: in blocks where the operation works entry by entry, else the whole tensor.

    A block is valid until the next one: all are merged in one buffer per type, with one cast.
    """
    common = min((s.shape(item.name)[0] for s in sources), default=0) if item.shape else 0
    padded = any(s.shape(item.name) != item.shape for s in sources)
    width = math.prod(item.shape[1:])
    step = max(1, _BLOCK // max(width, 1))
    if not padded and (not recipe.operation.elementwise or not item.shape or step >= item.shape[0]):
        yield _piece(item, item.shape, sources, recipe, buffers)
        return
    if not recipe.operation.elementwise:
        step = max(common, 1)
    for start in range(0, common, step):
        stop = min(start + step, common)
        rows = [_Rows(s, start, stop) for s in sources]
        yield _piece(item, (stop - start, *item.shape[1:]), rows, recipe, buffers)
    if common < item.shape[0]:
        yield sources[0].rows(item.name, common, item.shape[0])  # padding rows of the donor


def _piece(
    item: _Planned,
    shape: tuple[int, ...],
    sources: Sequence[FolderWeights | _Rows],
    recipe: MergeRecipe,
    buffers: dict[torch.dtype, Tensor],
) -> Tensor:
    weights, size = cast("list[Any]", sources), math.prod(shape)
    if item.dtype.is_floating_point and size <= _BLOCK:
        if item.dtype not in buffers:
            buffers[item.dtype] = torch.empty(_BLOCK, dtype=item.dtype)
        out = buffers[item.dtype][:size].view(shape)
        if recipe.write(item.name, weights, out):
            return out
    return cast("Tensor", recipe.tensor(item.name, weights))


def _align_ties(sources: Sequence[FolderWeights]) -> bool:
    """Give every source a head where some have their own; return whether the result must be untied."""
    own = [("lm_head.weight" in s.names) for s in sources]
    embedding = next((n for n in sources[0].names if n.endswith("embed_tokens.weight")), None)
    if all(own) or not any(own) or embedding is None:
        return False
    for source, has in zip(sources, own, strict=True):
        if not has:
            source.alias("lm_head.weight", embedding)
    return True


def _small_files(donor: Path, config: Mapping[str, Any], folder: Path, wanted: torch.dtype | None, untie: bool) -> None:
    changed = dict(config)
    if wanted is not None:
        changed.pop("torch_dtype", None)
        changed["dtype"] = str(wanted).removeprefix("torch.")
    if untie:
        inner = changed.get("text_config")
        if isinstance(inner, dict) and "tie_word_embeddings" in inner:
            changed["text_config"] = {**inner, "tie_word_embeddings": False}
        changed["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(changed, indent=2, sort_keys=True) + "\n", "utf-8")
    copy_files(donor, folder, ("generation_config.json", *TOKENIZER))


def _card(title: str, record: Mapping[str, Any]) -> str:
    sources = "\n".join(f"- `{Path(s).name}`" for s in record["sources"])
    recipe = json.dumps({"operation": record["operation"]}, indent=2, sort_keys=True)
    return (
        f"---\nlibrary_name: transformers\ntags:\n- merge\n- moco\n---\n# {title}\n\nMerged from:\n\n{sources}\n\n"
        f"Computed in float32 and cast once:\n\n```json\n{recipe}\n```\n"
    )
