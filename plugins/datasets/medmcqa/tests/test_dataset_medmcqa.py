"""MedMCQA from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_medmcqa import MedMCQA
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("medmcqa")


def read(**options: Any) -> dict[str, Example]:
    data = MedMCQA(build(MedMCQA.Options, {"path": str(MedMCQA.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_the_index_counts_from_zero_and_unlabelled_rows_are_left_out() -> None:
    found = read()
    assert {p: (e.references[0], e.question.subset) for p, e in found.items()} == {
        "Which organ makes insulin?": ("Pancreas", "Physiology"),
        "How many chambers has the human heart?": ("4", "Anatomy"),
        "Which vitamin prevents scurvy?": ("C", "Biochemistry"),
    }
    assert found["Which vitamin prevents scurvy?"].question.choices == ("C", "A", "D", "D")  # options may repeat


def test_the_explanation_is_nowhere() -> None:
    assert not any("islets" in str(e) for e in read().values())


def test_a_copy_that_counts_from_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"id": "1", "question": "q", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 4}'
    )
    with pytest.raises(
        DatasetError, match=r"x\.jsonl, row 1, field 'cop': .*counts from 1, use openlifescienceai/medmcqa"
    ):
        read(path=str(tmp_path / "x.jsonl"))
