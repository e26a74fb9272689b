"""Writing a system: its weights where it is one model that has some, else what restores it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from moco_command_export.card import card
from moco_core import ConfigError, Model, Pool, StoreError, System, api
from moco_core.catalogue import Catalogue
from moco_core.config import plugin_of

__all__ = ["export"]


def export(run: Path, target: Path, known: Catalogue) -> str:
    """Write the system of a run folder to a new folder and say what it is. Raises what opening it raises; ConfigError."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"--to {target}: not empty; give a new folder")
    parts = api.open(run, plugins=known).parts
    base = run / "system" if (run / "system").is_dir() else run
    body = json.loads((base / "system.json").read_text(encoding="utf-8"))
    # opened once more, by an instance that writes what it describes
    source = plugin_of(known, "pool", body["pool"], "pool").instance
    system: System = parts.method.restore(Pool(source.pool), body["state"], base / "files")
    model = system.model
    beside = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        if model is not None and _has_weights(model):
            source.export(model, beside)
            what = "an adapter" if model.adapter else "a checkpoint"
        else:
            shutil.copytree(base, beside / "system")
            what = "a system"
        text = card(run, parts, body, model if what != "a system" else None)
        (beside / "README.md").write_text(text, encoding="utf-8")
        if target.exists():
            target.rmdir()
        os.replace(beside, target)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return f"{what} of {type(parts.method).title or body['method']['name']}"


def _has_weights(model: Model) -> bool:
    """Whether a model can be written: one that decodes over others (a serving recipe) is no weights."""
    recipe: Any = model.recipe
    return model.can("weights") and (recipe is None or recipe.kind != "serving")
