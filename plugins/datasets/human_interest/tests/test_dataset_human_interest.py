"""Human interest from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_human_interest import HumanInterest
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("human_interest")


def read(**options: Any) -> dict[str, Example]:
    data = HumanInterest(build(HumanInterest.Options, {"path": str(HumanInterest.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_topics_ids_and_the_splits_of_the_files() -> None:
    data = HumanInterest(HumanInterest.Options(**HumanInterest.sample()))
    for split, number in (("dev", 0), ("test", 1)):
        found = {e.id: e.question.subset for e in data.examples(split)}
        assert found == {f"asian_food_{number}": "asian_food", f"olympics_{number}": "olympics"}
    example = read()["How are host cities chosen?"]
    assert example.references == () and example.question.text() == "How are host cities chosen?"


def test_the_studys_replies_are_no_references_and_may_be_missing(tmp_path: Path) -> None:
    line = '{"split": "%s", "input": "q%d", "output": %s, "id": "policy_%d"}\n'
    (tmp_path / "human_interest.jsonl").write_text(line % ("dev", 1, "null", 1) + line % ("test", 2, '"r"', 2))
    found = read(path=str(tmp_path))
    assert {p: (e.question.subset, e.references, e.meta) for p, e in found.items()} == {
        "q1": ("policy", (), {"model_reply": ""}),
        "q2": ("policy", (), {"model_reply": "r"}),
    }


def test_files_of_other_tasks_in_the_same_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "human_policy.json").write_text(
        '{"dev": [{"prompt": "a", "id": "0"}], "test": [{"prompt": "b", "id": "1"}]}'
    )
    (tmp_path / "gsm8k.json").write_text('{"dev": [{"question": "c"}]}')
    assert {p: e.id for p, e in read(path=str(tmp_path)).items()} == {"a": "policy_0", "b": "policy_1"}


def test_without_a_path_the_command_that_gets_the_source_is_given(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"git clone https://github\.com/BunsenFeng/model_swarm"):
        read(path="")
