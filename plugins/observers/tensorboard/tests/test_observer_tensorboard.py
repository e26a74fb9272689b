"""Runs as event files: what TensorBoard's own reader finds in them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import moco_core as moco
from moco_core import Model, NoOptions, PoolSource, cli
from moco_core.catalogue import installed
from moco_core.runs.observe import Observers
from moco_observer_tensorboard import Options, Tensorboard
from moco_toolkit_authoring import observer_checks
from moco_toolkit_authoring.scripted import ScriptedPool
from moco_toolkit_tracking.sample import REPORTS, sample

pytestmark = pytest.mark.filterwarnings("ignore")  # what a tracker warns of in its thread is its own affair
test_conformance = observer_checks("tensorboard")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sample was written: TensorBoard's folder of the grid."""
    made, lines = tmp_path_factory.mktemp("board"), []
    observers = Observers(None, [Tensorboard(Options(folder=str(made)))], report=lines.append)
    for hook, event in sample(made / "runs"):
        observers.tell(hook, event)
    assert lines == []
    return made / "moco" / "runs"


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def scalars(found: Any, name: str) -> list[tuple[int, float]]:
    return [(e.step, float(e.tensor_proto.float_val[0])) for e in found.Tensors(name)]


def text(found: Any, name: str) -> str:
    (event,) = found.Tensors(name)
    return str(event.tensor_proto.string_val[0].decode())


def test_runs_have_configuration_curves_and_figures(folder: Path) -> None:
    found = read(folder / "skills-vote-s0")
    assert scalars(found, "fit/score") == [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert scalars(found, "training/a-sft/loss") == [(0, 2.0), (1, 1.0)]
    assert scalars(found, "score/mean") == [(0, 0.75)] and scalars(found, "score/low") == [(0, 0.5)]
    assert scalars(found, "cost/total/completion") == [(0, 48.0)]
    assert json.loads(text(found, "config").removeprefix("```json\n").removesuffix("\n```"))["method"]["rounds"] == 2
    assert text(found, "status") == "finished" and text(read(folder / "skills-small-s0"), "status") == "failed"
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_the_report_is_a_text_and_files(folder: Path) -> None:
    assert "| vote | 0.750 | [0.500, 0.900] | 8 | +0.250 | 0.0312 |" in text(read(folder / "report"), "table")
    assert json.loads((folder / "report" / "report.json").read_text()) == REPORTS
    assert (folder / "report" / "report.md").is_file()


def test_a_folder_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lines: list[str] = []
    observers = Observers(None, [Tensorboard(Options(folder=str(tmp_path / "file")))], report=lines.append)
    for hook, event in sample(tmp_path / "runs"):
        observers.tell(hook, event)
    assert len(lines) == 1 and "NotADirectoryError" in lines[0]


class Said(PoolSource[NoOptions]):
    """Scripted models."""

    def models(self) -> Sequence[Model]:
        return ScriptedPool({n: lambda call: "The answer is 1." for n in "ab"}).models()


def test_a_run_that_names_it_is_found_there_with_its_dev_scores_and_the_scores_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moco_method_multiagent_refine", reason="needs a method that notes what it fits")
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    found = moco.run(
        pool="said", method="multiagent_refine", dataset="skills", dev=4, test=8, observers=["tensorboard"], out="mine"
    )
    board = tmp_path / "tensorboard" / "moco" / "mine"
    assert {p.name for p in board.iterdir()} == {"report", *(run.id for run in found.runs)}
    (report,) = found.reports
    for row in report.rows:
        (run,) = row.runs
        assert row.estimate is not None
        events = read(board / run.id)
        for name in ("mean", "low", "high"):
            ((_, value),) = scalars(events, f"score/{name}")
            assert value == pytest.approx(getattr(row.estimate, name), abs=1e-6)
        assert scalars(events, "cost/total/completion") == [(0, float(run.usage.completion_tokens))]
        if run.label == "multiagent_refine":
            assert {name for name in events.summary_metadata if name.startswith("fit/dev_scores/")} == {
                "fit/dev_scores/a",
                "fit/dev_scores/b",
            }
    assert json.loads((board / "report" / "report.json").read_text()) == [json.loads(json.dumps(report.data()))]


def test_a_tracker_that_is_not_installed_is_one_line_with_the_command_and_the_runs_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else real(name, *a))
    given = ["majority_vote", "-p", "said", "-d", "skills", "--test", "2", "--dev", "2", "--observer", "tensorboard"]
    assert cli._run(["run", *given]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "observer" in line]
    assert told == ["observer 'tensorboard' is switched off: tensorboard is not installed: pip install tensorboard"]
