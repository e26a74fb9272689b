"""The values that travel: labels of choices."""

from __future__ import annotations

from moco_core import Question


def test_choices_beyond_z_have_two_letters() -> None:
    letters = Question(id="q", prompt="?", choices=[str(i) for i in range(26 + 26 * 26 + 1)]).letters
    assert letters[:3] == ("A", "B", "C") and letters[24:29] == ("Y", "Z", "AA", "AB", "AC")
    assert letters[-2:] == ("ZZ", "AAA") and len(set(letters)) == len(letters)


def test_every_choice_stands_behind_its_letter_in_the_prompt() -> None:
    question = Question(id="q", prompt="Which?", choices=[f"option {i}" for i in range(28)])
    assert question.text().split("\n")[-2:] == ["AA) option 26", "AB) option 27"]


def test_a_datasets_own_labels_stay() -> None:
    assert Question(id="q", prompt="?", choices=("x", "y"), labels=("1", "2")).letters == ("1", "2")
