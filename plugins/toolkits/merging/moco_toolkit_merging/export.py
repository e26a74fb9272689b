"""Writing a fitted merge as an ordinary checkpoint or adapter, with a model card that holds its recipe."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moco_core.errors import ConfigError
from moco_core.models import Model, Pool
from moco_toolkit_merging.recipes import Merge

__all__ = ["RECIPE_FILE", "check_folder", "export_merge", "model_card"]

RECIPE_FILE = "moco_recipe.json"


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
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: cannot be written: no permission in {parent}; choose another folder")
    free = shutil.disk_usage(parent).free
    if size > free:
        raise ConfigError(
            f"{folder}: needs {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free on that disk; choose another one"
        )
    return True


def read_fingerprint(folder: Path) -> str:
    """Return the fingerprint of the merge a folder holds, or the empty string."""
    try:
        return str(json.loads((folder / RECIPE_FILE).read_text("utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def export_merge(pool: Pool, merge: Merge, folder: Path, *, title: str, method: str, facts: Any = None) -> None:
    """Write the merged model to ``folder``: what transformers, vLLM and mergekit load, plus README.md and the recipe.

    Everything is written beside and renamed, so that ``folder`` is complete or absent; a folder that already holds this
    merge is left as it is. Raises ConfigError if it cannot be written. Blocking: run it in a worker thread.
    """
    from moco_pool_transformers.host import host_of

    folder = Path(folder)
    model = merge.model(pool, title)
    if not check_folder(folder, model.memory or 0 if not model.adapter else 0, model.fingerprint):
        return
    beside = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        host_of(model).export(model, beside)
        record = {"fingerprint": model.fingerprint, "method": method, "merge": merge.dump(), "facts": facts or {}}
        (beside / RECIPE_FILE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")
        models = [s.check(pool) for s in merge.sources]
        (beside / "README.md").write_text(model_card(title, method, merge, models), "utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(beside, folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}; nothing was left behind") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def model_card(title: str, method: str, merge: Merge, models: Sequence[Model]) -> str:
    """Return a Hugging Face model card: sources, operation and the recipe as JSON."""
    repositories = list(dict.fromkeys(_repository(m) for m in models))
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


def _repository(model: Model) -> str:
    spec = model.info.get("spec")
    entry = getattr(spec, "entry", None) or {}
    return str(entry.get("model", ""))
