"""BLEnD from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_blend import BLEnD, question
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("blend")


def read(**options: Any) -> dict[str, Example]:
    data = BLEnD(build(BLEnD.Options, {"path": str(BLEnD.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_the_question_loses_instruction_and_options_and_keeps_its_hint() -> None:
    found = read()
    assert {p: (e.id, e.question.subset, e.references[0]) for p, e in found.items()} == {
        "What do people eat for breakfast in Iran?": ("Fi-01_0", "Iran", "bread"),
        "What do people eat for breakfast in Mexico?": ("Fi-01_1", "Mexico", "tacos"),
        "When do shops close in the UK? (Provide the answer in HH:MM format (e.g., 18:00).)": (
            "Fi-02_0",
            "UK",
            "17:30",
        ),
        "What is a common pet in Spain?": ("Fi-03_0", "Spain", "dog"),
    }


@pytest.mark.parametrize("seed", range(6))
def test_items_of_one_question_never_cross_the_splits(seed: int) -> None:
    sides: dict[str, set[str]] = {}
    for split in ("dev", "test"):
        try:
            for example in BLEnD(BLEnD.Options(**BLEnD.sample(), seed=seed)).examples(split):
                sides.setdefault(example.meta["ID"], set()).add(split)
        except DatasetError as error:
            assert "is empty" in str(error)  # three questions can fall on one side
    assert all(len(side) == 1 for side in sides.values())


def test_other_prompts_stay_as_they_are() -> None:
    assert question("Which vitamin A. or B. is it?") == "Which vitamin A. or B. is it?"
    assert question("Which?\nA. x\nB. y") == "Which?"
