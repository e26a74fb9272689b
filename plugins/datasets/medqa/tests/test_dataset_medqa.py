"""MedQA from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_medqa import MedQA
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("medqa")


def read(**options: Any) -> dict[str, Example]:
    data = MedQA(build(MedQA.Options, {"path": str(MedQA.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_the_answer_is_found_by_its_letter() -> None:
    assert sorted(e.references[0] for e in read().values()) == ["Iron", "Penicillin", "Radial nerve"]


def test_all_three_row_forms_give_the_same_record(tmp_path: Path) -> None:
    forms = {
        "source": {
            "question": "q?",
            "options": {"A": "w", "B": "x", "C": "y", "D": "z"},
            "answer_idx": "C",
            "answer": "y",
        },
        "hf": {
            "id": "1",
            "sent1": "q?",
            "sent2": "",
            "ending0": "w",
            "ending1": "x",
            "ending2": "y",
            "ending3": "z",
            "label": 2,
        },
        "study": {
            "split": "test",
            "id": 1,
            "question": "q?",
            "choices": {"A": "w", "B": "x", "C": "y", "D": "z"},
            "answer": "C",
        },
    }
    for name, row in forms.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps(row))
        (example,) = MedQA(MedQA.Options(path=str(path), test_size=1, dev_size=0)).examples("test")
        assert (example.question.prompt, example.question.choices, example.answer) == ("q?", ("w", "x", "y", "z"), 2)


def test_the_five_option_test_is_refused(tmp_path: Path) -> None:
    row = {"question": "q?", "options": dict(zip("ABCDE", "vwxyz", strict=True)), "answer_idx": "C"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(DatasetError, match=r"x\.jsonl, row 1, field 'options': expected 4 options, got 5"):
        read(path=str(tmp_path / "x.jsonl"))
