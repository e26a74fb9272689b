"""AGIEval from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_agieval import AGIEval, asked
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("agieval")


def read(**options: Any) -> dict[str, Example]:
    data = AGIEval(build(AGIEval.Options, {"path": str(AGIEval.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_passage_and_question_without_the_options_inside_the_query() -> None:
    found = read()
    assert {p: (e.question.subset, e.references) for p, e in found.items()} == {
        "A train covers 120 km in 2 hours. What is its speed?": ("aqua-rat", ("60 km/h",)),
        "What is a quarter of 20?": ("aqua-rat", ("5",)),
        "The lamp went out. Mara lit a candle and read on. Why did Mara light a candle?": (
            "sat-en",
            ("The lamp had gone out.",),
        ),
        "All keepers own a key. Who owns a key?": ("sat-en", ("Every keeper",)),  # a row of the authors' files
    }
    assert found["What is a quarter of 20?"].question.choices == ("4", "5", "6", "8", "10")


def test_a_query_keeps_its_own_brackets_and_questions() -> None:
    assert asked("Q: Is (A) before B? Q: Why? Answer Choices: (A)x (B)y\nA: Among A through B, the answer is") == (
        "Q: Is (A) before B? Why?"
    )
    assert asked("no mark at all") == "no mark at all"


def test_one_subset_is_read_alone() -> None:
    assert {e.question.subset for e in read(subset="sat-en").values()} == {"sat-en"}


def test_a_gold_that_is_no_index_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "aqua-rat.jsonl").write_text('{"query": "Q: x", "choices": ["(A)a", "(B)b"], "gold": [2]}')
    with pytest.raises(
        DatasetError, match=r"aqua-rat\.jsonl, row 1, field 'gold': expected a list of one index below 2"
    ):
        read(path=str(tmp_path))
