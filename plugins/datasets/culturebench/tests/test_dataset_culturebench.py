"""CulturalBench-Hard from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_core.runs.loading import load_split
from moco_dataset_culturebench import CultureBench
from moco_toolkit_authoring import dataset_checks

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
    (tmp_path / "x.csv").write_text(HEADER + "1,1,q,a,True,X\n2,2,p,b,False,X\n")
    assert sorted(e.references[0] for e in read(path=str(tmp_path / "x.csv")).values()) == ["False", "True"]


def test_a_limit_keeps_the_last_question_whole() -> None:
    data = CultureBench(CultureBench.Options(**CultureBench.sample()))
    for limit, kept in ((1, 4), (4, 4), (0, 0)):
        assert len(load_split(data, "culturebench", "test", limit).examples) == kept


def rows(count: int, question: int = 7) -> str:
    line = "{i},{q},Which drink {q}?,option {i},False,X\n"
    return "".join(line.format(i=100 * question + i, q=question) for i in range(count))


HEADER = "data_idx,question_idx,prompt_question,prompt_option,answer,country\n"


def test_a_fifth_judgement_is_refused_with_file_row_and_field(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(HEADER + rows(4, 1) + rows(5))
    with pytest.raises(DatasetError) as caught:
        read(path=str(path))
    assert str(caught.value) == (
        "x.csv, row 9, field 'question_idx': question '7' has a fifth judgement, expected 4 of every question"
    )


def test_questions_that_lack_judgements_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(HEADER + rows(4, 1) + rows(3) + rows(4, 2))
    data = CultureBench(build(CultureBench.Options, {"path": str(path)}))
    assert len([e for split in ("dev", "test") for e in data.examples(split)]) == 11  # type: ignore[arg-type]
    assert data.notes()["incomplete_groups"] == {"7": 3} and data.notes()["incomplete"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_question_that_is_there_twice_stays_on_one_side(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "x.csv"
    lines = [rows(4, q).replace(f"Which drink {q}?", f"Which drink {q % 6}?") for q in range(12)]  # each one twice
    path.write_text(HEADER + "".join(lines))
    data = CultureBench(build(CultureBench.Options, {"path": str(path), "seed": seed}))
    dev, test = ({e.question.prompt for e in data.examples(split)} for split in ("dev", "test"))  # type: ignore[arg-type]
    assert dev and test and not dev & test
    assert data.notes()["duplicates"]["across"]["count"] == 0
