"""Runs in MLflow, in a local SQLite store: what its client reads afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core.runs.observe import Observers
from moco_observer_mlflow import Mlflow, Options
from moco_toolkit_authoring import observer_checks
from moco_toolkit_tracking.sample import REPORTS, sample

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and what it is made of deprecate at their own pace


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store for all tests: making one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("mlflow")
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        from mlflow import MlflowClient

        MlflowClient().search_experiments()
        yield folder


test_conformance = observer_checks("mlflow", settings=[{"project": "conformance", "wait": 300.0}])


@pytest.fixture(scope="module")
def runs(store: Path) -> tuple[Any, dict[str, Any]]:
    """The client, and the runs of the sample by name."""
    lines: list[str] = []
    observers = Observers(None, [Mlflow(Options(wait=300))], report=lines.append)
    for hook, event in sample(store / "runs"):
        observers.tell(hook, event)
    assert lines == []
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("moco")
    return client, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_every_run_has_its_configuration_and_its_status(runs: tuple[Any, dict[str, Any]]) -> None:
    _, found = runs
    assert {name: run.info.status for name, run in found.items()} == {
        "skills-vote-s0": "FINISHED",
        "skills-small-s0": "FAILED",
        "report": "FAILED",
    }
    data = found["skills-vote-s0"].data
    assert data.params["method.name"] == "vote" and data.params["method.rounds"] == "2"
    assert data.params["pool.models"] == '["a", "b"]'
    assert data.tags["moco.group"] == "runs" and data.tags["moco.label"] == "vote"


def test_curves_scores_and_costs_are_metrics(runs: tuple[Any, dict[str, Any]]) -> None:
    client, found = runs
    run = found["skills-vote-s0"]
    curve = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "fit/score")}
    assert curve == {0: 0.0, 1: 0.25, 2: 0.5}
    losses = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "training/a-sft/loss")}
    assert losses == {0: 2.0, 1: 1.0}
    metrics = run.data.metrics
    assert [metrics[f"score/{k}"] for k in ("mean", "low", "high", "n")] == [0.75, 0.5, 0.9, 8.0]
    assert metrics["cost/total/calls"] == 20.0 and metrics["seconds/total"] == 2.5
    assert "score/mean" not in found["skills-small-s0"].data.metrics


def test_the_report_is_a_table_and_files(runs: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    client, found = runs
    run = found["report"].info.run_id
    assert sorted(f.path for f in client.list_artifacts(run)) == ["report.json", "report.md", "table.json"]
    read = {
        name: Path(client.download_artifacts(run, name, str(tmp_path))).read_text()
        for name in ("report.json", "table.json")
    }
    assert json.loads(read["report.json"]) == REPORTS
    table = json.loads(read["table.json"])
    assert [dict(zip(table["columns"], row, strict=True))["score"] for row in table["data"]] == [None, 0.75]


def test_a_server_that_is_down_is_reported_once(tmp_path: Path) -> None:
    lines: list[str] = []
    observers = Observers(None, [Mlflow(Options(uri="http://127.0.0.1:9"))], report=lines.append)
    for hook, event in sample(tmp_path / "runs"):
        observers.tell(hook, event)
    (line,) = lines
    assert "is switched off" in line and "127.0.0.1" in line
