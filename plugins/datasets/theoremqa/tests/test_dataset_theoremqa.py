"""TheoremQA from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_theoremqa import TheoremQA
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("theoremqa")


def read(**options: Any) -> dict[str, Example]:
    data = TheoremQA(build(TheoremQA.Options, {"path": str(TheoremQA.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_types_are_kept_and_questions_with_a_picture_left_out() -> None:
    found = {e.question.meta["answer_type"]: (e.references[0], e.question.answer_kind) for e in read().values()}
    assert found == {
        "integer": ("180", "typed"),
        "float": ("1.602e-19", "typed"),
        "bool": ("False", "typed"),
        "list of integer": ("[-2, 2]", "typed"),
        "option": ("(b)", "typed"),
    }
    data = TheoremQA(TheoremQA.Options(**TheoremQA.sample()))
    list(data.examples("test"))
    assert data.notes()["dropped"]["test"] == {"needs a picture": 1}


def test_an_unknown_type_is_an_error(tmp_path: Path) -> None:
    row = {"Question": "q", "Answer": "1", "Answer_type": "matrix", "Picture": None}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(
        DatasetError, match=r"x\.jsonl, row 1, field 'Answer_type': expected one of bool, float, integer"
    ):
        read(path=str(tmp_path / "x.jsonl"))
