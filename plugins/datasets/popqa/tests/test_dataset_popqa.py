"""PopQA from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_popqa import PopQA
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("popqa")


def read(**options: Any) -> dict[str, Example]:
    data = PopQA(build(PopQA.Options, {"path": str(PopQA.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_aliases_are_parsed_as_json_with_their_commas_quotes_and_brackets() -> None:
    found = read()
    assert {e.id: e.references for e in found.values()} == {
        "1": ("Northland", "Northland, Kingdom of"),
        "2": ("Iris Vale", 'I. [Iris] "Ivy" Vale'),
        "3": ("drama", "dram\u00e4"),
    }
    example = found["Who is the author of The Grey Tower?"]
    assert example.question.subset == "author" and example.meta == {"s_pop": 5, "o_pop": 41}


@pytest.mark.parametrize("answers", ["not json", "[]", '"x"', "[1]"])
def test_aliases_that_are_no_list_of_texts_are_an_error(tmp_path: Path, answers: str) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": 1, "question": "q", "possible_answers": answers}))
    with pytest.raises(DatasetError, match=r"x\.jsonl, row 1, field 'possible_answers': expected "):
        read(path=str(tmp_path / "x.jsonl"))
