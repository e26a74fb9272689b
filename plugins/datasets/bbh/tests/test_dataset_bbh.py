"""BIG-Bench Hard from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_bbh import BBH
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("bbh")


def read(**options: Any) -> dict[str, Example]:
    data = BBH(build(BBH.Options, {"path": str(BBH.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_every_kind_of_target_is_read_by_its_own_rule() -> None:
    found = {e.question.subset: e for e in read().values() if "hats" not in e.question.prompt}
    shown = {t: (e.question.answer_kind, e.references, e.question.labels) for t, e in found.items()}
    assert shown == {
        "causal_judgement": ("label", ("Yes",), ("Yes", "No")),
        "date_understanding": ("letter", ("(B)",), ("A", "B", "C")),
        "dyck_languages": ("tokens", ("]",), ()),
        "object_counting": ("integer", ("3",), ()),
        "ruin_names": ("letter", ("(A)",), ("A", "B")),  # the target was the option's text
        "word_sorting": ("tokens", ("apple fig pear",), ()),
    }
    assert found["dyck_languages"].question.meta == {"opening": "[ ( )"}


def test_an_option_that_was_cut_at_its_comma_gives_the_letters_of_its_pieces() -> None:
    example = next(e for p, e in read().items() if "hats" in p)
    assert example.references == ("(C)", "(D)")


def test_a_question_with_two_opposite_answers_is_left_out() -> None:
    assert not [p for p in read() if "clock" in p]
    data = BBH(build(BBH.Options, BBH.sample()))
    list(data.examples("dev"))
    assert data.notes()["dropped"]["dev"] == {"asked twice with different answers": 2}


def test_a_target_that_is_no_option_is_left_out_and_counted(tmp_path: Path) -> None:
    row = '{"input": "q\\nOptions:\\n(A) x\\n(B) y", "target": "%s"}\n'
    (tmp_path / "snarks.jsonl").write_text(row % "(B)" + row.replace("q", "p") % "z" + row.replace("q", "r") % "(A)")
    data = BBH(BBH.Options(path=str(tmp_path)))
    list(data.examples("test"))
    assert data.notes()["dropped"]["test"] == {"the target is none of the options": 1}


def test_a_file_that_names_no_task_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"input": "q", "target": "a"}')
    with pytest.raises(DatasetError, match=r"x\.jsonl, row 1, field 'input': unknown task '': name the file"):
        read(path=str(tmp_path / "x.jsonl"))


def test_there_are_27_tasks_of_which_17_offer_letters() -> None:
    from moco_dataset_bbh.tasks import CHOICE, TASKS

    assert (len(TASKS), len(CHOICE)) == (27, 17)
