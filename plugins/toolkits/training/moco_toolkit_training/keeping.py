"""Stages of a training, to choose among; keeping a trained model with a saved system, which then needs no cache."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco_core.errors import CapabilityError
from moco_core.local import Trained
from moco_core.models import Model, Pool
from moco_core.types import digest

__all__ = ["kept", "restore_trained", "save_trained", "stage_folder", "stage_steps", "stages"]

_STAGES = "stages"


def stage_steps(steps: int, keep: int) -> list[int]:
    """Return after which of all steps a stage is kept: ``keep`` of them evenly apart, less the last step."""
    return sorted({round(steps * k / keep) for k in range(1, keep)} - {0, steps})


def stage_folder(folder: Path, step: int) -> Path:
    """Return where in a training's folder its stage after a step is kept."""
    return folder / _STAGES / f"{step:08}"


def stages(model: Model) -> list[Model]:
    """Return what a training kept of a model on its way, the earliest first and the model itself last (``Job.keep``)."""
    trained, out = _recipe(model), []
    for place in sorted((trained.folder.parent / _STAGES).glob("*[0-9]")):
        recipe = Trained(digest(trained.fingerprint, int(place.name)), place)
        out.append(model.engine.derive(f"{model.name}@{int(place.name)}", recipe, model.sources))
    return [*out, model]


def kept(model: Model | None) -> Mapping[str, Any] | None:
    """Return what a system's state says of a trained model, as JSON data; None for none."""
    if model is None:
        return None
    return {"name": model.name, "base": model.sources[0].name, "fingerprint": _recipe(model).fingerprint}


def save_trained(model: Model, folder: Path) -> None:
    """Copy a trained model's files into ``folder``, which does not exist yet."""
    shutil.copytree(_recipe(model).folder, folder)


def restore_trained(pool: Pool, state: Mapping[str, Any] | None, folder: Path) -> Model | None:
    """Return the model that :func:`kept` and :func:`save_trained` kept."""
    if state is None:
        return None
    base = pool.named(state["base"], "trained model")
    return pool.derive(state["name"], Trained(state["fingerprint"], folder), [base])


def _recipe(model: Model) -> Trained:
    if not isinstance(model.recipe, Trained):
        raise CapabilityError(f"model {model.name!r} was not trained")
    return model.recipe
