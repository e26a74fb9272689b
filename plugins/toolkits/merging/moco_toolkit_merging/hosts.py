"""The engine behind a model, where it lends its weights: what is known of files before any work."""

from __future__ import annotations

from moco_core import Model
from moco_core.local import LocalEngine, ModelFiles

__all__ = ["files_of", "host_or_none"]


def host_or_none(model: Model) -> LocalEngine | None:
    """Return the engine of a model if weights are in its reach."""
    return model.engine if isinstance(model.engine, LocalEngine) else None


def files_of(model: Model) -> ModelFiles:
    """Return where a model's files lie; nothing where its engine does not tell."""
    host = host_or_none(model)
    return ModelFiles() if host is None else host.files(model)
