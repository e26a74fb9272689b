"""CulturalBench-Hard from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from moco_core import Example
from moco_core.options import build
from moco_core.testing import dataset_checks
from moco_dataset_culturebench import CultureBench

test_conformance = dataset_checks("culturebench")


def read(**options: Any) -> dict[str, Example]:
    data = CultureBench(build(CultureBench.Options, {"path": str(CultureBench.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_prompt_answer_group_and_country() -> None:
    example = read()[
        "Is this answer true or false for this question? Answer True or False only. "
        "Question: What do people in Northland drink at breakfast? Answer: milk tea"
    ]
    assert (example.id, example.group, example.question.subset) == ("3", "0", "Northland")
    assert (example.references, example.question.answer_kind) == (("True",), "boolean")
    assert len(read()) == 12


@pytest.mark.parametrize("seed", range(4))
def test_the_four_judgements_of_a_question_stay_together(seed: int) -> None:
    data = CultureBench(CultureBench.Options(**CultureBench.sample(), seed=seed))
    groups = {split: Counter(e.group for e in data.examples(split)) for split in ("dev", "test")}
    assert not groups["dev"].keys() & groups["test"].keys()
    assert {n for group in groups.values() for n in group.values()} == {4}


def test_answers_of_an_exported_table_are_texts(tmp_path: Path) -> None:
    header = "data_idx,question_idx,prompt_question,prompt_option,answer,country\n"
    (tmp_path / "x.csv").write_text(header + "1,1,q,a,True,X\n2,2,p,b,False,X\n")
    assert sorted(e.references[0] for e in read(path=str(tmp_path / "x.csv")).values()) == ["False", "True"]
