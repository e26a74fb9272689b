"""IFEval from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_ifeval import IFEval
from moco_toolkit_authoring import dataset_checks

RIGHT = {
    "1": "Rhine Elbe Oder",
    "2": "Drops fall out of a cloud.",
    "3": "* plum\n* pear",
    "4": '"Frozen water."',
}

test_conformance = dataset_checks("ifeval", gold=lambda example: RIGHT[example.id])


def read(**options: Any) -> dict[str, Example]:
    data = IFEval(build(IFEval.Options, {"path": str(IFEval.fixture_path()), **options}))
    return {e.id: e for split in ("dev", "test") for e in data.examples(split)}


def test_arguments_without_a_meaning_are_left_out() -> None:
    found = read()
    assert found["1"].meta["instructions"] == [["punctuation:no_comma", {}]]
    assert found["2"].meta["instructions"] == [
        ["length_constraints:number_words", {"num_words": 5, "relation": "at least"}],
        ["keywords:existence", {"keywords": ["cloud"]}],
    ]
    assert found["2"].question.prompt == "Describe rain in at least 5 words and mention the word cloud."
    assert not found["2"].question.meta  # what is checked is no part of what a method may know


@pytest.mark.parametrize("given", ["[{}]", "{}", '[{}, "x"]'])
def test_every_instruction_has_its_arguments(tmp_path: Path, given: str) -> None:
    path = tmp_path / "ifeval.jsonl"
    path.write_text(f'{{"key": 1, "prompt": "p", "instruction_id_list": ["a", "b"], "kwargs": {given}}}')
    with pytest.raises(DatasetError, match="'kwargs': expected a list of 2 mappings, one per instruction"):
        read(path=str(path))
