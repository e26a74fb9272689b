"""TabMWP from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moco_core import Example
from moco_core.options import build
from moco_dataset_tablemwp import TableMWP
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("tablemwp", settings=[{}, {"variant": "multiple_choice"}])


def read(**options: Any) -> dict[str, Example]:
    data = TableMWP(build(TableMWP.Options, {"path": str(TableMWP.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_free_text_shows_title_table_question_and_unit() -> None:
    data = TableMWP(TableMWP.Options(**TableMWP.sample()))
    (dev,), (test,) = data.examples("dev"), data.examples("test")
    assert dev.question.prompt == (
        "Table:\n[TITLE]: Stamps\nName | Stamps\nAna | 500\nBo | 700\n"
        "Question: How many stamps do they have together? (Unit: stamps)"
    )
    assert (dev.id, dev.references, dev.question.answer_kind) == ("1", ("1,200",), "integer")
    assert test.question.prompt == "Table:\npen | $1.50\nink | $4.00\nQuestion: What does a pen cost? (Unit: $)"
    assert (test.id, test.references, test.question.answer_kind) == ("3", ("1.50",), "decimal")
    assert data.facts.metric == "exact_match" and dev.question.subset == "grade 3"


def test_multiple_choice_is_a_variant_with_facts_of_its_own() -> None:
    found = {e.id: (e.question.choices, e.answer) for e in read(variant="multiple_choice").values()}
    assert found == {"2": (("Ana", "Bo"), 1), "4": (("yes", "no"), 1)}
    data = TableMWP(build(TableMWP.Options, {"variant": "multiple_choice"}))
    assert (data.facts.metric, data.facts.sizes) == ("multiple_choice", (124, 125))
    assert TableMWP.facts.metric == "exact_match"


def test_the_fourth_option_of_the_study_is_taken_by_its_place(tmp_path: Path) -> None:
    row = {
        "split": "test",
        "id": "9",
        "question": "Table:\n[TITLE]: None\nx",
        "choices": {"A": "p", "B": "q", "C": "r", "id": "s"},
        "answer": "id",
    }
    (tmp_path / "tablemwp_multiple_choice.jsonl").write_text(json.dumps(row))
    data = TableMWP(build(TableMWP.Options, {"path": str(tmp_path), "variant": "multiple_choice"}))
    (example,) = data.examples("test")
    assert (example.answer, example.references, example.question.prompt) == (3, ("s",), "Table:\nx")
    assert example.question.letters == ("A", "B", "C", "D")


def test_the_full_splits_in_the_same_folder_are_left_alone(tmp_path: Path) -> None:
    for file in TableMWP.fixture_path().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / file.name.replace("1k", "")).write_bytes(file.read_bytes())
    assert sorted(e.id for e in read(path=str(tmp_path)).values()) == ["1", "3"]
