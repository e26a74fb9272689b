"""Stages of a training, to choose among; keeping a trained model with a saved system, which then needs no cache."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco_core.errors import CapabilityError
from moco_core.models import Model, Pool
from moco_core.training import Trained
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
    trained = model.recipe
    if not isinstance(trained, Trained):
        raise CapabilityError(f"model {model.name!r} was not trained")
    out = []
    for place in sorted((trained.folder.parent / _STAGES).glob("*[0-9]")):
        recipe = Trained(digest(trained.fingerprint, int(place.name)), place)
        out.append(model.engine.derive(f"{model.name}@{int(place.name)}", recipe, model.sources))
    return [*out, model]


def kept(model: Model | None) -> Mapping[str, Any] | None:
    """Return what a system's state says of a model, trained (in several rounds, too) or not, as JSON data; None for none.

    ``bases`` are the names of what it was trained from, the nearest first; the one that is in the pool is its base.
    """
    if model is None:
        return None
    if not isinstance(model.recipe, Trained):
        return {"name": model.name}
    bases, source = [], model
    while isinstance(source.recipe, Trained):
        (source,) = source.sources
        bases.append(source.name)
    return {"name": model.name, "bases": bases, "fingerprint": model.recipe.fingerprint}


def save_trained(model: Model, folder: Path) -> None:
    """Copy a trained model's files into ``folder``, which does not exist yet; nothing of a model that was not trained."""
    if isinstance(model.recipe, Trained):
        shutil.copytree(model.recipe.folder, folder)


def restore_trained(pool: Pool, state: Mapping[str, Any] | None, folder: Path) -> Model | None:
    """Return the model that :func:`kept` and :func:`save_trained` kept. Raises ConfigError if its base left the pool."""
    if state is None:
        return None
    if "fingerprint" not in state:
        return pool.named(state["name"], "model")
    near = next((name for name in state["bases"] if name in pool.names), state["bases"][-1])
    base = pool.named(near, "trained model")
    return pool.derive(state["name"], Trained(state["fingerprint"], folder), [base])
