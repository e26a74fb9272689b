"""MATH from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_math import MATH, boxed
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("math")


def read(**options: Any) -> dict[str, Example]:
    data = MATH(build(MATH.Options, {"path": str(MATH.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_the_gold_is_the_last_box() -> None:
    found = {p: (e.references[0], e.question.subset, e.meta["level"]) for p, e in read().items()}
    assert found == {
        "What is $3 \\cdot 4$?": ("12", "prealgebra", "Level 1"),
        "Simplify $\\frac{\\sqrt{8}}{4}$.": ("\\frac{\\sqrt{2}}{2}", "algebra", "Level 3"),
        "How many ways are there to order two books?": ("2", "counting_and_probability", "Level 1"),
        "Which set holds 1 and 2 only?": ("\\{1,2\\}", "number_theory", "Level 2"),
        "What is $x$ if $x + 1 = 6$?": ("5", "algebra", "Level 1"),
    }


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"$\boxed{\frac{a}{\sqrt{b_{1}}}}$", r"\frac{a}{\sqrt{b_{1}}}"),
        (r"$\boxed{1}$, no: $\boxed{2}$.", "2"),
        (r"\boxed {3}", "3"),
        (r"\boxed 5.", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1", ""),
        ("no box", ""),
    ],
)
def test_braces_are_balanced(solution: str, gold: str) -> None:
    assert boxed(solution) == gold


def test_items_whose_answer_the_study_lost_are_counted(tmp_path: Path) -> None:
    lines = [
        {"split": "test", "input": "a", "output": None, "id": "1"},
        {"split": "test", "input": "b", "output": "2", "id": "1"},
    ]
    (tmp_path / "math.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    data = MATH(MATH.Options(path=str(tmp_path)))
    assert [e.references for e in data.examples("test")] == [("2",)]
    assert data.notes()["dropped"] == {"test": {"the study lost the answer": 1}}


def test_a_solution_without_a_box_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"problem": "p", "level": "1", "type": "Algebra", "solution": "5"}')
    with pytest.raises(DatasetError, match=r"x\.jsonl, row 1, field 'solution': no answer in"):
        read(path=str(tmp_path / "x.jsonl"))
