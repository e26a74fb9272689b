"""Runs in Weights & Biases, offline: what its own files hold afterwards."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb_files import records

from moco_core.runs.observe import Observers
from moco_observer_wandb import Options, Wandb
from moco_toolkit_authoring import observer_checks
from moco_toolkit_tracking.sample import REPORTS, sample

pytestmark = pytest.mark.filterwarnings("ignore")  # what a tracker warns of in its thread is its own affair
test_conformance = observer_checks("wandb", settings=[{"mode": "offline", "wait": 300.0}])


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is written to the user's own folders."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("home")))
        patch.setattr(logging.getLogger("wandb"), "propagate", False)  # pages of it stand before whatever failed
        yield


@pytest.fixture(scope="module")
def runs(places: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What wandb would send of each run of the sample, by the run's name."""
    folder, lines = tmp_path_factory.mktemp("wandb"), []
    observers = Observers(None, [Wandb(Options(mode="offline", folder=str(folder), wait=300))], report=lines.append)
    for hook, event in sample(folder / "runs"):
        observers.tell(hook, event)
    assert lines == []
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for file in folder.rglob("*.wandb"):
        told = [Record.FromString(data) for data in records(file.read_bytes())]
        (run,) = {r.run.display_name for r in told if r.WhichOneof("record_type") == "run"}
        found[run] = told
    return found


def items(told: list[Any], kind: str) -> list[dict[str, Any]]:
    """The values of all records of a kind."""
    out = []
    for record in told:
        if record.WhichOneof("record_type") == kind:
            part = getattr(record, kind)
            pairs = part.update if kind in ("summary", "config") else part.item
            out.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in pairs})
    return out


def test_every_run_is_one_of_its_runs_in_the_group_of_the_grid(runs: dict[str, list[Any]]) -> None:
    assert sorted(runs) == ["report", "skills-small-s0", "skills-vote-s0"]
    (first,) = [r.run for r in runs["skills-vote-s0"] if r.WhichOneof("record_type") == "run"]
    assert (first.project, first.run_group) == ("moco", "runs")
    config = {i.key: json.loads(i.value_json) for i in first.config.update}
    assert config["method"] == {"name": "vote", "rounds": 2} and config["moco"]["label"] == "vote"


def test_curves_have_steps_of_their_own_and_the_end_its_figures(runs: dict[str, list[Any]]) -> None:
    history = [
        {k: v for k, v in row.items() if not k.startswith("_")} for row in items(runs["skills-vote-s0"], "history")
    ]
    assert history == [
        *({"fit/step": n, "fit/score": n / 4, "fit/best": n / 4} for n in range(3)),
        *({"training/a-sft/step": n, "training/a-sft/loss": 2.0 - n} for n in range(2)),
    ]
    metrics = [r.metric for r in runs["skills-vote-s0"] if r.WhichOneof("record_type") == "metric"]
    assert {m.glob_name or m.name for m in metrics} >= {"fit/*", "training/a-sft/*"}
    summary: dict[str, Any] = {}
    for update in items(runs["skills-vote-s0"], "summary"):
        summary |= update
    assert (summary["score/mean"], summary["score/low"], summary["score/high"], summary["score/n"]) == (
        0.75,
        0.5,
        0.9,
        8,
    )
    assert summary["cost/total/completion"] == 48 and summary["cost/respond/a/money"] == 0.5
    assert summary["status"] == "finished"
    codes = {n: [r.exit.exit_code for r in t if r.WhichOneof("record_type") == "exit"] for n, t in runs.items()}
    assert codes == {"skills-vote-s0": [0], "skills-small-s0": [1], "report": [1]}


def test_the_report_is_a_table_and_an_artefact(runs: dict[str, list[Any]]) -> None:
    (logged,) = items(runs["report"], "history")
    assert (logged["table/_type"], logged["table/nrows"]) == ("table-file", 2)
    artefacts = [r.artifact for r in runs["report"] if r.WhichOneof("record_type") == "artifact"]
    (found,) = [a for a in artefacts if a.type == "report"]
    assert [c.path for c in found.manifest.contents] == ["report.json", "report.md"]
    kept = {c.path: Path(c.local_path).read_text() for c in found.manifest.contents}
    assert json.loads(kept["report.json"]) == REPORTS


def test_online_without_a_key_is_one_line_and_no_question_in_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    lines: list[str] = []
    observers = Observers(None, [Wandb(Options(mode="online", folder=str(tmp_path)))], report=lines.append)
    for hook, event in sample(tmp_path / "runs"):
        observers.tell(hook, event)
    (line,) = lines
    assert "wandb has no key: run `wandb login`, set WANDB_API_KEY, or -o observer.mode=offline" in line
