"""ChemBench from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_chembench import ChemBench
from moco_toolkit_authoring import dataset_checks


def right(example: Example) -> str:
    """A reply that says the right answer."""
    places = example.meta.get("right") or ([] if example.answer is None else [example.answer])
    return "The answer is " + (" and ".join(example.question.letters[i] for i in places) or example.references[0])


test_conformance = dataset_checks("chembench", settings=[{}, {"shuffle_choices": True}], gold=right)


def read(**options: Any) -> dict[str, Example]:
    data = ChemBench(build(ChemBench.Options, {"path": str(ChemBench.fixture_path()), **options}))
    return {e.id: e for split in ("dev", "test") for e in data.examples(split)}


def test_one_right_option_several_or_a_number() -> None:
    found = read()
    assert {id: (e.question.subset, e.question.answer_kind, e.answer, e.references) for id, e in found.items()} == {
        "fixture-1": ("general_chemistry", "choice", 1, ("HCl",)),
        "fixture-2": ("general_chemistry", "choice", None, ("helium", "argon")),
        "fixture-3": ("analytical_chemistry", "decimal", None, ("24",)),
        "fixture-5": ("analytical_chemistry", "choice", 0, ("sodium",)),
    }
    assert found["fixture-2"].meta["right"] == [0, 2] and found["fixture-2"].question.meta == {"several": True}
    assert "letters of all correct options" in found["fixture-2"].question.text()
    assert "final number" in found["fixture-3"].question.text()


@pytest.mark.parametrize("seed", range(5))
def test_right_options_stay_right_in_any_order(seed: int) -> None:
    example = read(shuffle_choices=True, seed=seed)["fixture-2"]
    assert {example.question.choices[i] for i in example.meta["right"]} == {"helium", "argon"}


def test_a_row_that_asks_nothing_is_dropped_and_told() -> None:
    data = ChemBench(ChemBench.Options(**ChemBench.sample()))
    list(data.examples("dev"))
    assert data.notes()["dropped"]["dev"] == {"neither options nor a number": 1}


@pytest.mark.parametrize("examples", ["[]", '[{"input": "?"}, {"input": "!"}]', '["x"]', "3"])
def test_a_row_of_another_form_is_an_error(tmp_path: Path, examples: str) -> None:
    (tmp_path / "general_chemistry.jsonl").write_text(f'{{"uuid": "u", "examples": {examples}}}')
    with pytest.raises(DatasetError, match=r"general_chemistry\.jsonl, row 1, field 'examples': expected one record"):
        read(path=str(tmp_path))
