"""Keeping a trained model with a saved system, so that the system needs no cache to be opened again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco_core.errors import CapabilityError
from moco_core.local import Trained
from moco_core.models import Model, Pool

__all__ = ["kept", "restore_trained", "save_trained"]


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
