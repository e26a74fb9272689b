"""ARC-Challenge from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from pathlib import Path

import pytest

from moco_core import DatasetError, Example
from moco_dataset_arc_challenge import ArcChallenge, Options
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("arc_challenge")


def read(**options: object) -> dict[str, Example]:
    data = ArcChallenge(Options(**{"path": str(ArcChallenge.fixture_path()), **options}))
    return {e.id: e for split in ("dev", "test") for e in data.examples(split)}


def test_the_right_option_is_found_by_its_label_whatever_the_labels_are() -> None:
    found = read()
    right = {name: e.question.choices[e.answer or 0] for name, e in found.items()}
    assert right == {
        "Fixture_1": "balance",
        "Fixture_2": "sunlight",
        "Fixture_3": "water",
        "Fixture_4": "It reflects sunlight.",
    }
    assert found["Fixture_3"].answer == 1 and found["Fixture_3"].question.letters == ("A", "B", "C", "D")
    assert [len(e.question.choices) for _, e in sorted(found.items())] == [4, 3, 4, 5]


def test_the_shown_text_is_question_lettered_choices_and_format() -> None:
    assert read()["Fixture_2"].question.text() == (
        "What does a green leaf need to make sugar?\nA) moonlight\nB) salt\nC) sunlight\n"
        'End with "The answer is" followed by the letter of the correct option.'
    )


def test_shuffled_choices_keep_their_right_answer_and_record_the_order() -> None:
    plain, mixed = read(), read(shuffle_choices=True, seed=3)
    for name, example in mixed.items():
        before = plain[name].question.choices
        assert example.question.choices == tuple(before[i] for i in example.meta["permutation"])
        assert example.references == plain[name].references
        assert example.question.choices[example.answer or 0] == example.references[0]
    assert any(mixed[n].question.choices != plain[n].question.choices for n in plain)
    assert {n: e.question.choices for n, e in read(shuffle_choices=True, seed=3).items()} == {
        n: e.question.choices for n, e in mixed.items()
    }


def test_an_answer_that_is_no_label_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"id": "x", "question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"}\n'
    )
    with pytest.raises(DatasetError, match=r"rows\.jsonl, row 1, field 'answerKey': expected one of A, B, got 'C'"):
        read(path=str(path))
