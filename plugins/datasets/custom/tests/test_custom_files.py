"""A file in place of a dataset's name: what is guessed, what is said, how it is corrected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, cli
from moco_core.catalogue import installed
from moco_core.config import parse_settings
from moco_core.options import build
from moco_dataset_custom import Custom, Options


def guess(path: Path, *rows: dict[str, Any], **options: Any) -> dict[str, Any]:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    data = Custom(build(Options, {"path": str(path), "guess": True, "dev_size": 0, **options}))
    found: dict[str, Any] = data.notes()["guessed"]
    return found


Q, C = {"question": "question", "answer": "answer"}, {"choices": "choices", "kind": "choice"}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"id": "a", "question": "?", "answer": "x"}, Q | {"id_field": "id", "kind": "text"}),
        ({"prompt": "?", "gold": 3}, {"question": "prompt", "answer": "gold", "kind": "integer"}),
        (
            {"question_id": "7", "Question Text": "?", "goldAnswer": "2.5"},
            {"question": "Question Text", "answer": "goldAnswer", "id_field": "question_id", "kind": "decimal"},
        ),
        ({"problem": "?", "solution": "yes"}, {"question": "problem", "answer": "solution", "kind": "boolean"}),
        ({"text": "?", "label": ["a", "b"]}, {"question": "text", "answer": "label", "kind": "text"}),
        ({"question": "?", "options": ["a", "b"], "answer": 1}, Q | C | {"choices": "options"}),
        ({"question": "?", "choices": '["a", "b"]', "answer": "b"}, Q | C),
        ({"question": "?", "A": "x", "B": "y", "answer": "B"}, Q | C | {"choices": ["A", "B"]}),
        ({"question": "?", "opa": "x", "opb": "y", "answer": "A"}, Q | C | {"choices": ["opa", "opb"]}),
        # as many as there are choices: counted from 1
        ({"question": "?", "choices": ["x", "y"], "answer": 2}, Q | C | {"first_index": 1}),
        # a text called options is none
        ({"question": "?", "options": "none", "answer": "x"}, Q | {"kind": "text"}),
    ],
)
def test_fields_and_kind_are_guessed_from_names_and_values(
    tmp_path: Path, row: dict[str, Any], found: dict[str, Any]
) -> None:
    assert guess(tmp_path / "t.jsonl", row) == found


def test_what_is_given_is_not_guessed(tmp_path: Path) -> None:
    row = {"question": "short", "long": "?", "answer": "1"}
    assert guess(tmp_path / "t.jsonl", row, question="long", kind="text") == {"answer": "answer"}
    assert guess(tmp_path / "t.jsonl", {"prompt": "?"}, kind="open") == {"question": "prompt"}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"a": "?", "answer": "x"}, "question; it has a, answer; say which with --field question=NAME"),
        (
            {"question": "?", "b": "x"},
            "answer; it has question, b; say which with --field answer=NAME, or --field kind=open if there are none",
        ),
    ],
)
def test_a_field_that_cannot_be_told_is_asked_for_with_those_there_are(
    tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        guess(tmp_path / "t.jsonl", row)
    assert str(caught.value) == f"t.jsonl: no field looks like the {told}"


def test_rows_are_read_as_they_were_guessed(tmp_path: Path) -> None:
    rows = [{"qid": f"q{i}", "text": f"{i}?", "gold": i} for i in range(4)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    data = Custom(build(Options, {"path": str(tmp_path / "t.jsonl"), "guess": True}))
    found = {
        e.id: (e.question.prompt, e.references, e.question.answer_kind)
        for s in ("dev", "test")
        for e in data.examples(s)
    }  # type: ignore[arg-type]
    assert found == {f"q{i}": (f"{i}?", (str(i),), "integer") for i in range(4)}
    assert data.facts.metric == "exact_match" and data.options.question == "question"  # the options stay what was given


# on the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    pytest.importorskip("moco_pool_tiny", reason="needs a pool")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    (tmp_path / "data").mkdir()
    rows = [{"text": f"What is {i} + 1?", "gold": i + 1, "note": "x"} for i in range(8)]
    (tmp_path / "data" / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "data" / "other.csv").write_text("problem,note,key\n" + "".join(f"{i}?,{i},k{i}\n" for i in range(8)))
    yield tmp_path


def plan(capsys: Any, *args: str) -> tuple[int, list[dict[str, Any]], str]:
    code = cli._run(["plan", *args, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out)["runs"] if out.strip() else [], err


def test_a_file_is_a_dataset_and_what_was_guessed_is_said(folder: Path, capsys: Any) -> None:
    code, (run,), err = plan(capsys, "majority_vote", "-d", "data/mine.jsonl")
    assert code == 0 and (run["dev"], run["test"]) == (4, 4)
    assert err.splitlines() == [
        "data/mine.jsonl: guessed question=text, answer=gold, kind=integer; --field NAME=FIELD says otherwise"
    ]


def test_fields_are_corrected_by_name(folder: Path, capsys: Any) -> None:
    code, runs, err = plan(capsys, "majority_vote", "-d", "data/other.csv")
    assert code == 2 and runs == [] and "no field looks like the answer; it has problem, note, key" in err
    given = ("--field", "answer=note", "--field", "id=key", "--field", "kind=text")
    code, runs, err = plan(capsys, "majority_vote", "-d", "data/other.csv", *given)
    assert code == 0 and len(runs) == 1 and err.startswith("data/other.csv: guessed question=problem; --field")
    code, _, err = plan(capsys, "majority_vote", "-d", "data/other.csv", "--field", "anwser=note")
    assert code == 2 and "dataset.anwser: unknown key, did you mean 'answer'?" in err


def test_files_in_a_configuration_start_from_it_and_keep_their_names_apart(folder: Path, capsys: Any) -> None:
    (folder / "data" / "two.yaml").write_text(
        "method: majority_vote\ndatasets:\n  - mine.jsonl\n  - {name: other.csv, answer: note, label: others}\n"
    )
    code, runs, err = plan(capsys, "data/two.yaml")
    assert code == 0 and len(runs) == 2, err
    config = parse_settings(
        {"datasets": ["data/mine.jsonl", {"name": "data/other.csv", "answer": "note", "label": "others"}]}, installed()
    )
    assert [d.label for d in config.datasets] == ["mine", "others"]
    assert [d.options.path for d in config.datasets] == ["data/mine.jsonl", "data/other.csv"]


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere.ndjson", "nowhere.arrow", "data/nowhere"])
def test_a_file_that_is_not_there_is_one_line(folder: Path, capsys: Any, name: str) -> None:
    code, _, err = plan(capsys, "majority_vote", "-d", name)
    assert code == 2 and err == f"error: {name}: no such file or folder\n"
