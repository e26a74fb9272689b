"""Writing a fitted merge as an ordinary checkpoint or adapter, with a model card that holds its recipe."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moco_core import ConfigError, MocoError, Model, Pool, StoreError
from moco_toolkit_checkpoints.fingerprints import read_header
from moco_toolkit_checkpoints.local import local_engine
from moco_toolkit_merging.engines import files_of
from moco_toolkit_merging.merges import Merge

__all__ = [
    "RECIPE_FILE",
    "ExportFailed",
    "check_folder",
    "export_merge",
    "model_card",
    "read_record",
    "written_beside",
    "written_size",
]

RECIPE_FILE = "moco_recipe.json"


class ExportFailed(MocoError):
    """A merge could not be written though its folder was fine when the work began: a disk that filled up, say."""


def check_folder(folder: Path, size: int = 0, fingerprint: str = "") -> bool:
    """Return whether ``folder`` is still to be written: False if it already holds the merge of that fingerprint.

    Raises ConfigError, before any work, if it holds something else, cannot be written, or lacks ``size`` bytes of room.
    """
    if folder.exists():
        if not folder.is_dir():
            raise ConfigError(f"{folder}: is a file; give the path of a new folder")
        if fingerprint and read_fingerprint(folder) == fingerprint:
            return False
        if any(folder.iterdir()):
            raise ConfigError(f"{folder}: not empty; give a new folder")
        if os.path.ismount(folder):  # what is written beside a folder cannot take the place of a mounted one
            raise ConfigError(f"{folder}: is a mounted disk; give a new folder on it")
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    for place in (folder, parent):
        if place.exists() and not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            raise ConfigError(f"{folder}: cannot be written: no permission in {place}; choose another folder")
    free = shutil.disk_usage(parent).free
    if size > free:
        raise ConfigError(f"{folder}: needs {_bytes(size)}, {_bytes(free)} are free on that disk; choose another one")
    return True


def _bytes(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1024:.0f} KiB"


def read_record(folder: Path) -> dict[str, Any]:
    """Return what a folder says of the merge it holds; empty if it holds none."""
    try:
        record = json.loads((folder / RECIPE_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("fingerprint") else {}


def read_fingerprint(folder: Path) -> str:
    """Return the fingerprint of the merge a folder holds, or the empty string."""
    return str(read_record(folder).get("fingerprint", ""))


@contextmanager
def written_beside(folder: Path) -> Iterator[Path]:
    """Yield a path beside ``folder`` to write a new folder at; when the block ends, that takes the place of ``folder``.

    ``folder`` is complete or as before. Raises ExportFailed if it cannot be written; then nothing is left behind, not even
    folders above it that were made for it.
    """
    target = folder.absolute()
    made = [p for p in target.parents if not p.exists()]
    beside = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        yield beside
        if target.exists():
            target.rmdir()
        os.replace(beside, target)
    except (OSError, StoreError) as error:
        reason = getattr(error, "strerror", None) or str(error).rpartition("cannot be written: ")[2]
        raise ExportFailed(
            f"{folder}: cannot be written: {reason}; nothing was left behind, and what was computed is kept: "
            "make room and run the same command again"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        with suppress(OSError):
            for parent in made if not target.exists() else []:
                parent.rmdir()


def written_size(models: Sequence[Model], *, dense: bool) -> int:
    """Return the bytes that a merge of ``models`` takes on disk, told from their files; 0 where those are not in reach.

    ``dense`` merges are written as the first model (or its base) is stored, others as a float32 adapter of summed ranks.
    """
    if dense:
        folder = files_of(models[0]).checkpoint
        found = sum(p.stat().st_size for p in folder.glob("*.safetensors")) if folder is not None else 0
        return found or max((m.memory or 0 for m in models if not m.adapter), default=0)
    adapters = [folder for m in models if (folder := files_of(m).adapter) is not None]
    headers = [read_header(folder / "adapter_model.safetensors") for folder in adapters]
    return sum(4 * math.prod(shape) for header in headers for _, shape in header.values())


def export_merge(pool: Pool, merge: Merge, folder: Path, *, title: str, method: str, facts: Any = None) -> None:
    """Write the merged model to ``folder``: what transformers, vLLM and mergekit load, plus README.md and the recipe.

    Everything is written beside and renamed, so that ``folder`` is complete or absent; a folder that already holds this
    merge is left as it is. Raises ConfigError if it cannot take it, ExportFailed if writing fails. Blocking: run it in a
    worker thread.
    """
    folder = Path(folder)
    model = merge.model(pool, title)
    models = [s.check(pool) for s in merge.sources]
    if not check_folder(folder, written_size(models, dense=merge.operation is not None), model.fingerprint):
        return
    with written_beside(folder) as beside:
        local_engine(model).export(model, beside)
        record = {"fingerprint": model.fingerprint, "method": method, "merge": merge.dump(), "facts": facts or {}}
        (beside / RECIPE_FILE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")
        (beside / "README.md").write_text(model_card(title, method, merge, models), "utf-8")


def model_card(title: str, method: str, merge: Merge, models: Sequence[Model]) -> str:
    """Return a Hugging Face model card: sources, operation and the recipe as JSON."""
    repositories = list(dict.fromkeys(files_of(m).named for m in models))
    named = [r for r in repositories if r and r.count("/") == 1 and not r.startswith((".", "/", "~"))]
    head = ["---", "library_name: transformers", "tags:", "- merge", "- moco"]
    if named:
        head += ["base_model:", *(f"- {r}" for r in named)]
    if merge.operation is None:
        head[1] = "library_name: peft"
    lines = [*head, "---", f"# {title}", "", f"Merged by MoCo's `{method}` from:", ""]
    for source, model in zip(merge.sources, models, strict=True):
        what = f"the base of `{model.name}`" if source.base else f"`{model.name}`"
        lines.append(f"- {what} (fingerprint `{source.fingerprint[:16]}`)")
    lines += ["", "The recipe, computed in float32 and cast once:", "", "```json"]
    lines += [json.dumps(merge.dump(), indent=2, sort_keys=True), "```", ""]
    return "\n".join(lines)
