"""The engine behind a model, where it lends weights: what it knows of files before any work."""

from __future__ import annotations

from moco_core import Model
from moco_toolkit_checkpoints.local import LocalEngine, ModelFiles

__all__ = ["engine_of", "files_of"]


def engine_of(model: Model) -> LocalEngine | None:
    """Return the engine of a model if weights are in its reach."""
    return model.engine if isinstance(model.engine, LocalEngine) else None


def files_of(model: Model) -> ModelFiles:
    """Return where a model's files lie; nothing where its engine does not tell."""
    engine = engine_of(model)
    return ModelFiles() if engine is None else engine.files(model)
