"""A folder of runs as a list: what is shown, filtered and said of runs that cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import moco_core as moco
from moco_core import Dataset, DatasetFacts, Example, Model, NoOptions, PoolSource, Question, Split, cli
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedPool


class Said(PoolSource[NoOptions]):
    """Scripted models."""

    def models(self) -> Sequence[Model]:
        return ScriptedPool({n: lambda call: "The answer is 1." for n in "ab"}).models()


class Six(Dataset[NoOptions]):
    """Six questions; 1 is right for half of them."""

    facts = DatasetFacts(title="Six", metric="exact_match")

    def examples(self, split: Split) -> Iterator[Example]:
        for i in range(6 if split == "test" else 0):
            question = Question(id=f"q{i}", prompt=f"{i}?", answer_kind="integer")
            yield Example(question=question, references=(str(1 + i % 2),))


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the runs of two single models and a vote on six questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    moco.register(Six, "ones")
    moco.run(pool="said", method="majority_vote", dataset={"name": "ones", "label": "six"}, dev=0)
    return tmp_path


def change(run: Path, **facts: Any) -> None:
    head = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(head | facts))


def vote() -> Path:
    (found,) = Path("runs").glob("*majority_vote*")
    return found


def table(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


def test_every_run_is_a_line_with_score_interval_n_status_and_folder(capsys: Any) -> None:
    change(vote(), started=1e9)
    assert cli._run(["runs"]) == 0
    head, *rows = table(capsys.readouterr().out)
    assert head == ["system", "dataset", "seed", "date", "score", "95%", "interval", "n", "status", "folder"]
    # Wilson's interval of 3 of 6
    assert rows[0][:3] == ["majority_vote", "six", "0"] and rows[0][3].startswith("2001-09-")
    assert rows[0][5:] == ["0.500", "[0.188,", "0.812]", "6", "finished", str(vote())]
    assert sorted(row[:2] for row in rows[1:]) == [["a", "(single)"], ["b", "(single)"]]


def test_filters_take_any_of_their_values_and_hold_together(capsys: Any) -> None:
    def labels(*args: str) -> list[str]:
        assert cli._run(["runs", *args, "--json"]) == 0
        return sorted(row["label"] for row in json.loads(capsys.readouterr().out))

    change(vote(), status="failed", error="question q1: no")
    assert labels() == ["a", "b", "majority_vote"]
    assert labels("--method", "single") == ["a", "b"]
    assert labels("--method", "a", "--method", "majority_vote") == ["a", "majority_vote"]
    assert labels("--method", "a", "--status", "failed") == []
    for name in ("six", "ones"):  # by its label and by its name
        assert labels("--status", "failed", "--dataset", name) == ["majority_vote"]
    assert labels("--dataset", "seven") == []


def test_dates_and_scores_have_ranges_with_their_ends_and_a_run_without_is_in_none(capsys: Any) -> None:
    def labels(*args: str) -> list[str]:
        assert cli._run(["runs", *args, "--json"]) == 0
        return sorted(row["label"] for row in json.loads(capsys.readouterr().out))

    for label, started, mean in (("a", datetime(2026, 3, 1, 0, 0), 0.25), ("b", datetime(2026, 3, 2, 23, 59), 0.75)):
        (run,) = Path("runs").glob(f"*single-{label}-*")
        change(run, started=started.timestamp(), score={"mean": mean, "low": 0.0, "high": 1.0, "n": 6})
    change(vote(), started=None, score={})
    assert labels("--since", "2026-03-01") == labels("--until", "2026-03-02") == ["a", "b"]
    assert labels("--since", "2026-03-02") == labels("--min-score", "0.75") == ["b"]
    assert labels("--until", "2026-03-01") == labels("--max-score", "0.25") == ["a"]
    assert labels("--until", "2026-03-01", "--min-score", "0.75") == []
    assert cli._run(["runs", "--since", "yesterday"]) == 2


def test_json_has_the_score_as_the_run_states_it_and_the_time_in_utc(capsys: Any) -> None:
    change(vote(), started=1e9)
    assert cli._run(["runs", "--json", "--method", "majority_vote"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["score"] == json.loads((vote() / "run.json").read_text())["score"]
    assert row["started"] == "2001-09-09T01:46:40+00:00" and row["models"] == ["a", "b"] and row["role"] == "method"


def test_that_nothing_matches_is_said_and_no_error(capsys: Any) -> None:
    assert cli._run(["runs", "--method", "nothing"]) == 0
    got = capsys.readouterr()
    assert got.out == "" and got.err == "none of 3 runs matches; there are runs of a, b, majority_vote on six\n"
    assert cli._run(["runs", "--status", "done"]) == 2


def test_a_killed_run_is_interrupted_and_has_no_score(capsys: Any) -> None:
    head = json.loads((vote() / "run.json").read_text())
    (vote() / "run.json").write_text(
        json.dumps({k: v for k, v in head.items() if k != "score"} | {"status": "running"})
    )
    (vote() / "units.jsonl").unlink()
    assert cli._run(["runs", "--status", "interrupted"]) == 0
    assert table(capsys.readouterr().out)[1][5:] == ["-", "-", "interrupted", str(vote())]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "cannot be read: "),
        ("[]", "damaged, expected a mapping"),
        ('{"format": 99}', "format 99, this version reads 1; upgrade moco-core"),
        ('{"format": 1}', "damaged: KeyError: 'id'"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_the_others_are_listed(text: str, line: str, capsys: Any) -> None:
    (vote() / "run.json").write_text(text)
    assert cli._run(["runs"]) == 1
    got = capsys.readouterr()
    assert len(got.out.splitlines()) == 3
    assert got.err.startswith(f"error: {vote()}") and line in got.err and len(got.err.splitlines()) == 1


@pytest.mark.parametrize(
    "config", [{}, {"method": {}, "dataset": {"name": "six"}, "metric": {"name": "m"}, "seed": 0}, "text"]
)
def test_a_damaged_configuration_is_one_line_too(config: Any, capsys: Any) -> None:
    change(vote(), config=config)
    assert cli._run(["runs"]) == 1
    got = capsys.readouterr()
    assert len(got.out.splitlines()) == 3 and "run.json: damaged" in got.err and len(got.err.splitlines()) == 1


@pytest.mark.parametrize("started", ["noon", None, 1e30, float("nan"), [1]])
def test_a_date_that_is_none_is_a_dash(started: Any, capsys: Any) -> None:
    change(vote(), started=started, score={"mean": "?"})
    assert cli._run(["runs", "--method", "majority_vote"]) == 0
    assert table(capsys.readouterr().out)[1][3:6] == ["-", "-", "-"]


def test_places_without_runs_are_one_line(capsys: Any) -> None:
    Path("empty").mkdir()
    Path("file").touch()
    for place, line in (("empty", "holds no run"), ("absent", "no such folder"), ("file", "no such folder")):
        assert cli._run(["runs", place]) == 2
        got = capsys.readouterr()
        assert got.out == "" and got.err.startswith(f"error: {place}: {line}") and len(got.err.splitlines()) == 1


def test_names_steer_no_terminal_and_keep_the_table_straight(capsys: Any) -> None:
    change(vote(), label="模型\x1b[2J\u202eone\ntwo")
    assert cli._run(["runs"]) == 0
    out = capsys.readouterr().out
    assert "模型\\u001b[2J\\u202eone two" in out and len(out.splitlines()) == 4
    from rich.cells import cell_len

    assert len({cell_len(line[: line.index("six")]) for line in out.splitlines()[1:]}) == 1


def test_listing_imports_no_engine_and_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from moco_core.cli import _run\n"
        "assert _run(['runs']) == 0\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'numpy', 'rich', 'yaml')"
        " or m.startswith(('moco_method_', 'moco_pool_', 'moco_dataset_', 'moco_metric_', 'moco_toolkit_'))]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
