"""Files runs in Trackio, locally, on a Space or on a server."""

from __future__ import annotations

from moco_core import hookimpl
from moco_observer_trackio.observer import Options, Trackio

__all__ = ["Options", "Trackio", "moco_observer"]


@hookimpl
def moco_observer() -> type[Trackio]:
    return Trackio
