"""A run and its questions, read from the folder alone, however the run ended and whatever models wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import moco_core as moco
from moco_core import Dataset, DatasetFacts, Example, Model, NoOptions, PoolSource, Question, Split, cli
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedPool

EVIL = "\x1b[2J\u202e[bold]I am {model}.\x07 The answer is 1."


class Said(PoolSource[NoOptions]):
    """Scripted models that try to steer the terminal."""

    def models(self) -> Sequence[Model]:
        return ScriptedPool({n: lambda call: EVIL.format(model=call.model) for n in "ab"}).models()


class Six(Dataset[NoOptions]):
    """Six questions; 1 is right for the even ones."""

    facts = DatasetFacts(title="Six", metric="exact_match")

    def examples(self, split: Split) -> Iterator[Example]:
        for i in range(6 if split == "test" else 0):
            question = Question(id=f"q{i}", prompt=f"What is {i}?", answer_kind="integer", subset="xy"[i % 2])
            yield Example(question=question, references=(str(1 + i % 2),))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a run of a vote on six questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    moco.register(Six, "six")
    return moco.run(pool="said", method="majority_vote", dataset="six", dev=0, baselines=False).runs[0].folder


Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def read(capsys: Any) -> Told:
    def told(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli._run(["read", *map(str, args)])
        got = capsys.readouterr()
        return code, got.out, got.err

    return told


def records(run: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Rewrite the records of a run."""
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    change(rows)
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def killed(run: Path, lines: int, rest: str = "") -> None:
    """Leave a run as a killed process leaves it, with some records and the beginning of another."""
    head = json.loads((run / "run.json").read_text())
    begun = {k: v for k, v in head.items() if k not in ("score", "tokens", "subsets", "extra_metrics")} | {
        "status": "running"
    }
    (run / "run.json").write_text(json.dumps(begun))
    whole = (run / "records.jsonl").read_text().splitlines(keepends=True)
    (run / "records.jsonl").write_text("".join(whole[:lines]) + rest)
    (run / "units.jsonl").unlink()


def test_a_run_is_shown_with_score_counts_costs_and_subsets(run: Path, read: Told) -> None:
    code, out, err = read(run)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith("majority_vote on six, seed 0: finished, begun 2")
    assert lines[1] == "  score      0.500 [0.188, 0.812], n 6 (exact_match)"  # Wilson's interval of 3 of 6
    assert lines[2] == "  questions  6 of 6 recorded: 3 right, 3 wrong, 0 failed; 0 unread"
    assert lines[3] == "  models     a, b" and lines[4].startswith("  cost       12 calls (0 from the cache), ")
    assert lines[5:] == ["  subset     x: 1.000, n 3", "  subset     y: 0.000, n 3"]


def test_questions_are_listed_by_what_came_of_them(run: Path, read: Told) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0] |= {"score": None, "error": "StoreError: no"}
        rows[1]["answer"]["status"] = "missing"

    records(run, change)
    for sort, ids in (
        ("right", "q2 q4"),
        ("wrong", "q1 q3 q5"),
        ("failed", "q0"),
        ("unread", "q1"),
        ("all", "q0 q1 q2 q3 q4 q5"),
    ):
        out = read(run, "--list", sort)[1].splitlines()[7:]
        assert [next(w for w in line.split() if w.startswith("q")) for line in out] == ids.split()
    assert "2 right, 3 wrong, 1 failed; 1 unread" in read(run)[1]
    assert read(run, "--list", "unread")[1].splitlines()[-1] == "     1   0.000  unread wrong  q1  What is 1?"


def test_a_score_that_is_no_number_is_neither_right_nor_wrong(run: Path, read: Told) -> None:
    records(run, lambda rows: rows[1].update(score=float("nan")))
    assert "3 right, 2 wrong, 0 failed" in read(run)[1]
    assert read(run, "--list", "all")[1].splitlines()[8].split()[:3] == ["1", "-", "q1"]
    assert "score -; read as" in read(run, "q1")[1]


def test_a_question_is_found_by_id_before_index_and_shown_with_who_said_what(run: Path, read: Told) -> None:
    code, out, err = read(run, "q1")
    assert (code, err) == (0, "") and out == read(run, "1")[1]
    lines = out.splitlines()
    assert lines[:6] == [
        "question 1: q1 (y)", "majority_vote on six, seed 0", "--- question", "What is 1?", "--- reference", "2"
    ]  # fmt: skip
    assert lines[6].startswith("--- 1. a (generate, ") and lines[7] == "user> What is 1?"
    assert lines[9].startswith("--- 2. b (generate, ")
    assert "--- reply" in lines and "score 0.000; read as '1'; finish eos" in lines
    records(run, lambda rows: rows[5].update(id="0"))
    assert read(run, "0")[1].startswith("question 5: 0 ")


def test_the_transcript_is_that_of_moco_ask(run: Path, read: Told, capsys: Any) -> None:
    assert cli._run(["ask", str(run), "What is 1?", "--kind", "integer", "--messages"]) == 0
    asked = capsys.readouterr().out.split("--- answer")[0]
    shown = read(run, "q1")[1]
    calls = shown[shown.index("--- 1.") : shown.index("--- reply")]
    assert calls == asked.replace(", cached)", ")")


def test_what_models_wrote_steers_no_terminal(run: Path, read: Told) -> None:
    records(run, lambda rows: rows[1].update(id="q\x1b]0;x", question="\u202ewhat\x07\nnext", error=""))
    for args in ((run, "1"), (run, "--list", "all"), (run, "1", "--json")):
        code, out, _ = read(*args)
        assert code == 0 and not {"\x1b", "\u202e", "\x07"} & {*out}
    assert "\\u001b[2J\\u202e[bold]I am a.\\u0007 The answer is 1." in read(run, "1")[1]
    assert len(read(run, "--list", "all")[1].splitlines()) == 7 + 6
    records(run, lambda rows: rows[1]["reply"].update(spans=[["a", "\x1b[2Jone", 3], ["b", " two", 1]]))
    out = read(run, "1")[1]
    assert "\x1b" not in out and "a (" in out and "3 tokens, 75%" in out and "[b] ' two'" in out


def test_json_is_the_record_as_it_is_stored(run: Path, read: Told) -> None:
    assert json.loads(read(run, "q2", "--json")[1]) == json.loads((run / "records.jsonl").read_text().splitlines()[2])
    body = json.loads(read(run, "--list", "wrong", "--json")[1])
    assert body["counts"] == {"recorded": 6, "right": 3, "wrong": 3} and body["score"]["mean"] == 0.5
    assert [row["id"] for row in body["listed"]] == ["q1", "q3", "q5"] and body["folder"] == str(run)
    assert "listed" not in json.loads(read(run, "--json")[1])


def test_a_killed_run_is_read_as_far_as_it_got(run: Path, read: Told) -> None:
    killed(run, 2, '{"index": 2, "id": "q2", "sub')
    code, out, err = read(run)
    assert (code, err) == (0, "") and ": interrupted" in out.splitlines()[0]
    assert "  score      - (exact_match)" in out and "2 of 6 recorded: 1 right, 1 wrong, 0 failed" in out
    assert "  error      its process was killed" in out
    assert read(run, "q1")[0] == 0
    assert read(run, "q2")[::2] == (
        2,
        f"error: {run}: no record of question 'q2'; 2 of 6 questions are recorded, the run is interrupted\n",
    )


def test_a_damaged_line_is_named_and_the_others_are_read(run: Path, read: Told) -> None:
    lines = (run / "records.jsonl").read_text().splitlines()
    (run / "records.jsonl").write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]) + "\n")
    code, out, err = read(run)
    assert code == 1 and "5 of 6 recorded" in out
    assert err.startswith(f"error: {run}/records.jsonl: line 2 is damaged") and len(err.splitlines()) == 1
    assert read(run, "q2")[::2] == (0, "")
    code, out, err = read(run, "q1")
    assert (code, out) == (2, "") and "line 2 is damaged" in err.splitlines()[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"calls": [{"model": "a"}]},
        {"calls": ["a"]},
        {"calls": [{"model": "a", "kind": "generate", "seen": {"messages": [["user"]]}}]},
        {"reply": {"spans": [["a"]]}},
    ],
)
def test_a_record_of_another_shape_is_one_line(run: Path, read: Told, wrong: dict[str, Any]) -> None:
    records(run, lambda rows: rows[1].update(wrong))
    code, _, err = read(run, "q1")
    assert code == 1 and err == f"error: {run}/records.jsonl: the record of question 'q1' is damaged\n"


@pytest.mark.parametrize("lacking", [["calls"], ["reply", "answer", "score"], ["references"], ["index"], ["id"]])
def test_a_record_that_lacks_a_part_shows_the_rest(run: Path, read: Told, lacking: list[str]) -> None:
    records(run, lambda rows: [rows[1].pop(name) for name in lacking])
    assert read(run, "1")[0] == 0 and read(run, "--list", "all")[0] == 0


def test_a_failed_question_says_why(run: Path, read: Told) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[1] = {k: v for k, v in rows[1].items() if k not in ("reply", "answer")} | {
            "score": None,
            "error": "too long",
        }

    records(run, change)
    assert read(run, "q1")[1].endswith("--- score\nfailed: too long\n")


def test_places_that_are_no_run_are_one_line(run: Path, read: Told) -> None:
    for args, code, words in (
        ((run.parent,), 2, "not a run folder (no run.json); moco runs lists"),
        (("absent",), 2, "absent: not a run folder"),
        ((run / "run.json", "q1"), 2, "not a run folder"),
        ((run, "q1", "--list", "all"), 2, "--list lists the questions of a run"),
        ((run, "seven"), 2, "no record of question 'seven'; 6 of 6 questions are recorded"),
        ((run, "-1"), 2, "No such option"),
        ((run, "qq1"), 2, "no record of question 'qq1', did you mean 'q1'?; 6 of 6"),
        ((run, "6"), 2, "no record of question '6'"),
    ):
        got = read(*args)
        assert got[0] == code and got[1] == "" and words in got[2]
    (run / "run.json").write_text("{")
    assert read(run)[0] == 1 and read(run)[2].startswith(f"error: {run}/run.json: cannot be read")


def test_reading_imports_no_engine_and_nothing_heavy(run: Path) -> None:
    code = (
        "import sys\n"
        "from moco_core.cli import _run\n"
        f"assert _run(['read', {str(run)!r}]) == 0 and _run(['read', {str(run)!r}, 'q1']) == 0\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'numpy', 'yaml')"
        " or m.startswith(('moco_method_', 'moco_pool_', 'moco_dataset_', 'moco_metric_', 'moco_toolkit_'))]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
