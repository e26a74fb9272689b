"""Writes runs as TensorBoard event files."""

from __future__ import annotations

from moco_core import hookimpl
from moco_observer_tensorboard.observer import Options, Tensorboard

__all__ = ["Options", "Tensorboard", "moco_observer"]


@hookimpl
def moco_observer() -> type[Tensorboard]:
    return Tensorboard
