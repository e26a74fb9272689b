"""Runs in MLflow: one of its runs for each of ours, in the experiment that the option ``project`` names."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core import option
from moco_toolkit_tracking import Tracked, Tracker, TrackingObserver, TrackingOptions, flat, safe

__all__ = ["Mlflow", "Options"]

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_PARAMS, _LENGTH = 100, 6000
"""What MLflow takes: parameters at once, characters of one."""


@attrs.frozen(kw_only=True)
class Options(TrackingOptions):
    """Options of mlflow."""

    uri: str = option("", help="a server, or a store such as sqlite:///mlflow.db; by default $MLFLOW_TRACKING_URI")


class Mlflow(TrackingObserver[Options]):
    """Files runs in MLflow."""

    Options = Options
    library = "mlflow"

    def connect(self) -> Tracker:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        logging.getLogger("alembic").setLevel(logging.WARNING)  # making a local store is told step by step
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        client = MlflowClient(self.options.uri or None)
        found = client.get_experiment_by_name(self.options.project)
        if found is None:
            try:
                return _Experiment(client, client.create_experiment(self.options.project))
            except MlflowException:  # another process was quicker
                found = client.get_experiment_by_name(self.options.project)
                if found is None:
                    raise
        return _Experiment(client, found.experiment_id)


@attrs.frozen
class _Experiment:
    client: Any
    id: str

    def open(self, name: str, group: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> Tracked:
        from mlflow.entities import Param

        told = {f"moco.{key}": value for key, value in {"group": group, **tags}.items()}
        run = self.client.create_run(self.id, run_name=name, tags=told).info.run_id
        params = [Param(safe(key), _text(value)[:_LENGTH]) for key, value in flat(config).items()]
        for start in range(0, len(params), _PARAMS):
            self.client.log_batch(run, params=params[start : start + _PARAMS])
        return _Run(self.client, run)


@attrs.frozen
class _Run:
    client: Any
    id: str

    def curve(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        self._send({f"{prefix}/{name}": value for name, value in values.items()}, step)

    def _send(self, values: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        if metrics := [Metric(name, value, now, step) for name, value in values.items()]:
            self.client.log_batch(self.id, metrics=metrics)

    def report(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], text: str, files: Sequence[Path]) -> None:
        self.client.log_dict(self.id, {"columns": list(columns), "data": [list(row) for row in rows]}, "table.json")
        for file in files:
            self.client.log_artifact(self.id, str(file))

    def close(self, status: str, figures: Mapping[str, float]) -> None:
        self._send(figures)
        self.client.set_terminated(self.id, _STATUS[status])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
