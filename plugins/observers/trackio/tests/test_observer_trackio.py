"""Runs in Trackio, kept locally: what its own storage reads afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core.runs.observe import Observers
from moco_observer_trackio import Options, Trackio
from moco_toolkit_authoring import observer_checks
from moco_toolkit_tracking.sample import REPORTS, sample


@pytest.fixture(scope="module", autouse=True)
def storage(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trackio reads where it keeps things when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trackio")
        patch.setenv("TRACKIO_DIR", str(folder))
        yield folder


pytestmark = pytest.mark.filterwarnings("ignore")  # what a tracker warns of in its thread is its own affair
test_conformance = observer_checks("trackio", settings=[{"project": "conformance"}])


@pytest.fixture(scope="module")
def runs(storage: Path) -> dict[str, Any]:
    """The lines of each run of the sample, and its configuration."""
    lines: list[str] = []
    observers = Observers(None, [Trackio(Options())], report=lines.append)
    for hook, event in sample(storage / "runs"):
        observers.tell(hook, event)
    assert lines == []
    from trackio.sqlite_storage import SQLiteStorage

    names = SQLiteStorage.get_runs("moco")
    return {name: (SQLiteStorage.get_logs("moco", name), SQLiteStorage.get_run_config("moco", name)) for name in names}


def values(logs: list[dict[str, Any]], key: str) -> dict[int, Any]:
    return {row["step"]: row[key] for row in logs if key in row}


def test_runs_have_configuration_curves_and_figures(runs: dict[str, Any]) -> None:
    assert sorted(runs) == ["report", "skills-small-s0", "skills-vote-s0"]
    logs, config = runs["skills-vote-s0"]
    assert config["method.name"] == "vote" and config["method.rounds"] == 2 and config["moco.label"] == "vote"
    assert values(logs, "fit/score") == {0: 0.0, 1: 0.25, 2: 0.5}
    assert values(logs, "training/a-sft/loss") == {0: 2.0, 1: 1.0}
    (last,) = [row for row in logs if "score/mean" in row]
    assert (last["score/mean"], last["score/low"], last["score/high"]) == (0.75, 0.5, 0.9)
    assert last["cost/total/money"] == 0.5 and last["status"] == "finished"


def test_the_report_is_a_table_a_text_and_files(runs: dict[str, Any], storage: Path) -> None:
    logs, _ = runs["report"]
    (table,) = values(logs, "table").values()
    assert [row["system"] for row in table["_value"]] == ["small", "vote"]
    (text,) = values(logs, "report").values()
    assert "| vote | 0.750 | [0.500, 0.900] | 8 | +0.250 | 0.0312 |" in text["_value"]
    kept = [f.read_text() for f in (storage / "artifacts" / "moco" / "blobs").rglob("*") if f.is_file()]
    assert REPORTS in [json.loads(t) for t in kept if t.startswith("[")] and text["_value"] in kept


def test_nothing_is_printed_where_results_go(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    observers = Observers(None, [Trackio(Options(project="quiet"))])
    for hook, event in sample(storage / "runs"):
        observers.tell(hook, event)
    assert capsys.readouterr().out == ""


def test_a_server_that_is_down_is_reported_once(storage: Path) -> None:
    lines: list[str] = []
    observers = Observers(None, [Trackio(Options(server="http://127.0.0.1:9/?write_token=x"))], report=lines.append)
    for hook, event in sample(storage / "runs"):
        observers.tell(hook, event)
    (line,) = lines
    assert line.endswith(": no Trackio server at 127.0.0.1:9: Connection refused")
