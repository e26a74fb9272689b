"""LAB-Bench from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from typing import Any

from moco_core import Example
from moco_core.options import build
from moco_dataset_lab_bench import DECLINE, LabBench
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("lab_bench", settings=[{}, {"decline": False}])


def read(**options: Any) -> dict[str, Example]:
    data = LabBench(build(LabBench.Options, {"path": str(LabBench.fixture_path()), **options}))
    return {e.id: e for split in ("dev", "test") for e in data.examples(split)}


def test_the_right_option_is_among_all_and_one_declines() -> None:
    for seed in range(5):
        found = read(seed=seed)
        assert {id: (e.question.subset, e.references) for id, e in found.items()} == {
            "fixture-1": ("SeqQA", ("100",)), "fixture-2": ("SeqQA", ("T",)), "fixture-3": ("ProtocolQA", ("Cooling",)),
        }  # fmt: skip
        for example in found.values():
            question = example.question
            assert question.choices[question.meta["decline"]] == DECLINE
            assert example.answer is not None and question.choices[example.answer] == example.references[0]
        assert set(found["fixture-2"].question.choices) == {"T", "C", "G", DECLINE}  # an empty distractor is none


def test_the_source_lists_the_right_option_first_and_we_do_not() -> None:
    places = {example.answer for seed in range(8) for example in read(seed=seed).values()}
    assert len(places) > 1


def test_a_protocol_comes_before_its_question() -> None:
    asked = read()["fixture-3"].question.prompt
    assert asked == "Protocol:\nStep 1: Cool the sample.\nStep 2: Spin it.\n\nQuestion: What comes first?"


def test_without_the_option_to_decline_there_is_none() -> None:
    assert all(DECLINE not in e.question.choices and not e.question.meta for e in read(decline=False).values())


def test_a_question_with_one_option_is_dropped_and_told() -> None:
    data = LabBench(LabBench.Options(**LabBench.sample()))
    list(data.examples("test"))
    assert data.notes()["dropped"]["test"] == {"no distractor": 1}
