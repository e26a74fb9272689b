"""Files runs in MLflow, on a server or in a local SQLite store."""

from __future__ import annotations

from moco_core import hookimpl
from moco_observer_mlflow.observer import Mlflow, Options

__all__ = ["Mlflow", "Options", "moco_observer"]


@hookimpl
def moco_observer() -> type[Mlflow]:
    return Mlflow
