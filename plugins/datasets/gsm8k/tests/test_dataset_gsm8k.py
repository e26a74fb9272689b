"""GSM8K from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moco_core import DatasetError
from moco_dataset_gsm8k import GSM8K, Options
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("gsm8k")


def read(path: Path) -> dict[str, str]:
    data = GSM8K(Options(path=str(path)))
    return {e.question.prompt: e.references[0] for split in ("dev", "test") for e in data.examples(split)}


def test_the_gold_is_the_number_after_the_last_mark_without_commas() -> None:
    found = read(GSM8K.fixture_path())
    assert sorted(found.values()) == ["-7", "1200", "210", "32"]
    assert found["A hall has 40 rows of 30 seats. How many people can sit in it?"] == "1200"


def test_the_rationale_never_reaches_the_question() -> None:
    data = GSM8K(Options(path=str(GSM8K.fixture_path())))
    for example in [*data.examples("dev"), *data.examples("test")]:
        assert example.question.answer_kind == "integer"
        assert "####" not in example.question.text() and "<<" not in example.question.text()
        assert example.meta["rationale"] and not example.question.meta


def test_both_row_forms_give_the_same_question_and_gold(tmp_path: Path) -> None:
    rows = [{"split": "test", "id": 7, "domain": "gsm8k", "input": "What is 1 + 1?", "output": "2"}]
    (tmp_path / "study.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "source.jsonl").write_text(json.dumps({"question": "What is 1 + 1?", "answer": "1 + 1 = 2\n#### 2"}))
    study = list(GSM8K(Options(path=str(tmp_path / "study.jsonl"))).examples("test"))
    source = list(GSM8K(Options(path=str(tmp_path / "source.jsonl"), dev_size=0, test_size=1)).examples("test"))
    assert [(e.question.text(), e.references) for e in study] == [(e.question.text(), e.references) for e in source]


def test_a_row_without_the_mark_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q", "answer": "1"}\n')
    with pytest.raises(DatasetError, match=r"rows\.jsonl, row 1, field 'answer': expected a rationale that ends in"):
        read(path)
