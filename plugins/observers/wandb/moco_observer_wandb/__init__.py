"""Files runs in Weights & Biases, online or offline."""

from __future__ import annotations

from moco_core import hookimpl
from moco_observer_wandb.observer import Options, Wandb

__all__ = ["Options", "Wandb", "moco_observer"]


@hookimpl
def moco_observer() -> type[Wandb]:
    return Wandb
