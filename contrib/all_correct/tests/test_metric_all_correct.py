"""All correct: sets of options, numbers within a share, and what is read out of a reply."""

from __future__ import annotations

from typing import Any

import pytest

from moco_core import Example, Question, Reply, Scored
from moco_metric_all_correct import AllCorrect, Options
from moco_toolkit_authoring import metric_checks, score_of

ACIDS = ("HCl", "NaOH", "HNO3", "KOH")


def several(*right: int, id: str = "s", choices: tuple[str, ...] = ACIDS) -> Example:
    question = Question(id=id, prompt="Which are acids?", choices=choices, answer_kind="choice", meta={"several": True})
    return Example(question=question, references=tuple(choices[i] for i in right), meta={"right": list(right)})


def number(reference: str, id: str = "n") -> Example:
    return Example(question=Question(id=id, prompt="How much?", answer_kind="decimal"), references=(reference,))


ONE = Example(question=Question(id="o", prompt="?", choices=ACIDS, answer_kind="choice"), references=("HCl",), answer=0)

test_conformance = metric_checks(
    "all_correct",
    settings=[{}, {"tolerance": 0.0}],
    examples=[several(0, 2), number("2.5"), ONE],
    texts=["A and C", "2.5", "A"],
)


def value(example: Example, reply: str, **options: Any) -> float | None:
    return score_of(AllCorrect(Options(**options)), example, reply).value


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("The answer is A and C.", 1.0),
        ("The answer is C, A.", 1.0),
        ("NaOH is a base. Answer: (A), (C)", 1.0),
        ("\\boxed{A, C}", 1.0),
        ("A, C", 1.0),
        ("The answer is A.", 0.0),
        ("The answer is A, B and C.", 0.0),
        ("The answer is A and C, not B.", 1.0),
        ("I do not know.", 0.0),
        ("<think>A, C", 0.0),
    ],
)
def test_exactly_the_right_options_earn_the_point(reply: str, score: float) -> None:
    assert value(several(0, 2), reply) == score


def test_options_of_one_text_are_one_answer() -> None:
    assert value(several(0, choices=("HCl", "NaOH", "HCl")), "The answer is C.") == 1.0


def test_several_letters_are_no_answer_to_a_question_with_one_right_option() -> None:
    assert (value(ONE, "The answer is A."), value(ONE, "The answer is A and C.")) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("reply", "tolerance", "score"),
    [
        ("The answer is 2.5", 0.0, 1.0),
        ("The answer is 2.525", 0.01, 1.0),  # the border counts
        ("The answer is 2.526", 0.01, 0.0),
        ("It is -2.5 kJ", 0.01, 0.0),
        ("2.5e0", 0.0, 1.0),
        ("The answer is 5/2.", 0.0, 1.0),
        ("The answer is 2.7", 0.1, 1.0),
        ("none", 0.1, 0.0),
    ],
)
def test_a_number_is_right_within_a_share_of_what_is_wanted(reply: str, tolerance: float, score: float) -> None:
    assert value(number("2.5"), reply, tolerance=tolerance) == score


def test_nothing_but_zero_is_near_zero() -> None:
    assert (value(number("0"), "0"), value(number("0"), "0.001")) == (1.0, 0.0)


def test_examples_that_say_nothing_are_not_scored_and_kinds_have_means_of_their_own() -> None:
    metric = AllCorrect(Options())
    assert value(several(), "A") is None and value(number("many"), "2") is None
    pairs = [(several(0, 2), "A, C"), (several(1), "A"), (number("2"), "2"), (ONE, "B")]
    rows = [Scored(example=e, reply=Reply(text=r), score=score_of(metric, e, r)) for e, r in pairs]
    assert metric.extra_metrics(rows) == {"one": 0.0, "several": 0.5, "number": 1.0}
