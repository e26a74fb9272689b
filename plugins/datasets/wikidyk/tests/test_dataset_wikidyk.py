"""WikiDYK from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_wikidyk import WikiDYK
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("wikidyk")


def read(**options: Any) -> dict[str, Example]:
    data = WikiDYK(build(WikiDYK.Options, {"path": str(WikiDYK.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_years_are_subsets_and_the_fact_is_never_shown() -> None:
    found = read()
    assert {p: (e.references[0], e.question.subset) for p, e in found.items()} == {
        "Which bridge in Northby was moved by ten metres in one night?": ("Mill Bridge", "2022"),
        "Who painted only with her left hand after 1901?": ("Ada Brook", "2023"),
        "What grows on the roof of Westhall station?": ("wild thyme", "2023"),
    }
    assert not any(e.references[0] in e.question.text() or e.question.meta for e in found.values())


def test_another_form_of_the_question_leaves_out_facts_without_it() -> None:
    data = WikiDYK(build(WikiDYK.Options, {"path": str(WikiDYK.fixture_path()), "form": "paraphrase"}))
    found = {e.question.prompt: e.references for split in ("dev", "test") for e in data.examples(split)}
    assert found == {
        "What was moved by ten metres in Northby, in one night?": ("Mill Bridge",),
        "Which painter used nothing but her left hand after 1901?": ("Ada Brook",),
    }
    assert data.notes()["dropped"]["test"] == {"no question of the form paraphrase": 1}


def row(**fields: Any) -> dict[str, Any]:
    return {"fact": "f", "year": 2024, "eval": {"reliability": {"prompt": "q", "answer": "a"}}, **fields}


def test_questions_kept_as_json_text_and_years_kept_as_numbers(tmp_path: Path) -> None:
    rows = [row(eval=json.dumps({"reliability": {"prompt": f"q{i}", "answer": ["a", "b"]}})) for i in range(2)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read(path=str(tmp_path / "x.jsonl"))
    assert {(p, e.references, e.question.subset) for p, e in found.items()} == {
        ("q0", ("a", "b"), "2024"),
        ("q1", ("a", "b"), "2024"),
    }


def test_a_table_of_columns_states_missing_forms_as_nulls(tmp_path: Path) -> None:
    asked = {"prompt": "q", "answer": "a"}
    evals = [
        {"reliability": asked, "paraphrase": None},
        {"reliability": {**asked, "prompt": "r"}, "paraphrase": {"prompt": "p", "answer": "a"}},
        {"reliability": {"prompt": None, "answer": None}, "paraphrase": {**asked, "prompt": "s"}},
    ]
    path = tmp_path / "test-00000-of-00001.parquet"
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([{"fact": "f", "year": "2024", "date": "d", "eval": e} for e in evals])
    parquet.write_table(table, path)
    assert sorted(read(path=str(path))) == ["q", "r"]
    assert sorted(read(path=str(path), form="paraphrase")) == ["p", "s"]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"eval": {"reliability": {"prompt": "q", "answer": " "}}}, "'eval.reliability.answer': empty text"),
        ({"eval": {"reliability": {"prompt": "q", "answer": []}}}, "'eval.reliability.answer': no answer"),
        ({"eval": {"reliability": {"answer": "a"}}}, "'eval.reliability.prompt': missing"),
        ({"eval": {"reliability": "q"}}, "'eval.reliability': expected an object, got str 'q'"),
        ({"eval": "{"}, "'eval': expected JSON written as text"),
        ({"eval": None}, "'eval': expected text, got null"),
    ],
)
def test_a_damaged_row_is_an_error(tmp_path: Path, bad: dict[str, Any], problem: str) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row(**bad)))
    with pytest.raises(DatasetError) as caught:
        read(path=str(tmp_path / "x.jsonl"))
    assert f"x.jsonl, row 1, field {problem}" in str(caught.value)
