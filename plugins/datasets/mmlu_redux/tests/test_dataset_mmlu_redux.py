"""MMLU-Redux from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from typing import Any

import pytest

from moco_core import Example
from moco_core.options import build
from moco_dataset_mmlu_redux import MMLURedux, corrected
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("mmlu_redux", settings=[{}, {"repair": True, "shuffle_choices": True}])


def read(**options: Any) -> dict[str, Example]:
    data = MMLURedux(build(MMLURedux.Options, {"path": str(MMLURedux.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_only_questions_without_a_fault_are_kept() -> None:
    found = {p: (e.references[0], e.question.subset) for p, e in read().items()}
    assert found == {
        "Which bone is in the thigh?": ("femur", "anatomy"),
        "What is 2 + 1?": ("3", "elementary_mathematics"),
    }
    data = MMLURedux(MMLURedux.Options(**MMLURedux.sample()))
    list(data.examples("test"))
    dropped = {"bad_question_clarity": 1, "multiple_correct_answers": 1, "wrong_groundtruth": 2}
    assert data.notes()["dropped"]["test"] == dropped


def test_wrong_labels_can_be_repaired() -> None:
    found = {p: e.references[0] for p, e in read(repair=True).items()}
    assert found["Where is the retina?"] == "eye"  # the correction is a letter
    assert found["What is 3 - 2?"] == "1"  # the correction is an option's text, not an index
    assert len(found) == 4


@pytest.mark.parametrize(
    ("text", "index"),
    [("2", 2), ("(B)", 1), ("d.", 3), (" y ", 1), ("4", None), ("E", None), ("none", None), ("", None)],
)
def test_a_correction_is_an_index_a_letter_or_a_text(text: str, index: int | None) -> None:
    assert corrected(text, ["x", "y", "z", "w"]) == index


def test_there_are_57_subjects() -> None:
    assert len(MMLURedux.subsets) == len(set(MMLURedux.subsets)) == len(MMLURedux.hub) == 57
