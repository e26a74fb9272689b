"""Rows that people have: many choices, missing answers, half characters, long cells and long numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_dataset_custom import Custom, Options


def read(path: Path, **options: Any) -> tuple[list[Example], dict[str, Any]]:
    data = Custom(Options(path=str(path), dev_size=0, test_size=0, **options))
    return [*data.examples("dev"), *data.examples("test")], data.notes()


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_more_choices_than_letters_have_labels_of_two(tmp_path: Path) -> None:
    choices = [f"x{i}" for i in range(27)]
    rows = [{"question": q, "choices": choices, "answer": a} for q, a in (("A?", 26), ("B?", "AA"))]
    found, _ = read(lines(tmp_path / "q.jsonl", *rows), choices="choices")
    assert [e.answer for e in found] == [26, 26] and "AA) x26" in found[0].question.text()


@pytest.mark.parametrize(
    "missing", ['{"question": "B?"}', '{"question": "B?", "answer": null}', '{"question": "B?", "answer": NaN}']
)
def test_a_row_without_an_answer_is_left_out_and_counted(tmp_path: Path, missing: str) -> None:
    path = lines(tmp_path / "q.jsonl", {"question": "A?", "answer": "x"}, missing, {"question": "C?", "answer": "z"})
    found, notes = read(path)
    assert {e.references for e in found} == {("x",), ("z",)}
    assert set().union(*notes["dropped"].values()) == {"no answer"}


def test_an_answer_that_no_row_has_is_an_error_that_names_the_fields(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="row 1, field 'answer': missing"):
        read(lines(tmp_path / "q.jsonl", {"question": "A?", "gold": "x"}, {"question": "B?", "gold": "y"}))


def test_half_a_character_is_named_with_its_row_and_field(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "q.jsonl",
        {"question": "A?", "answer": "x"},
        '{"question": "Broken \\\\ud83d", "answer": "y"}'.replace("\\\\", "\\"),
    )
    with pytest.raises(DatasetError, match=r"row 2, field 'question': half a character \(\\ud83d\)"):
        read(path)


def test_a_number_of_five_thousand_digits_is_one_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "q.jsonl", {"question": "A?", "answer": 1}, f'{{"question": "B?", "answer": {"7" * 5000}}}')
    with pytest.raises(DatasetError, match="row 2: cannot be read: Exceeds the limit"):
        read(path)


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("question,answer\n" + "word " * 40_000 + ",Bob\nWho?,Ann\n")
    found, _ = read(path)
    assert {e.references for e in found} == {("Bob",), ("Ann",)}
