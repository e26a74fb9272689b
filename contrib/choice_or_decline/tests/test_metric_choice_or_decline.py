"""Multiple choice with an option to decline."""

from __future__ import annotations

import attrs
import pytest

from moco_core import Example, NoOptions, Question, Reply, Scored
from moco_metric_choice_or_decline import ChoiceOrDecline
from moco_toolkit_authoring import metric_checks, score_of

QUESTION = Question(
    id="q", prompt="Which base pairs with A?", choices=("C", "T", "unknown"), answer_kind="choice", meta={"decline": 2}
)
EXAMPLE = Example(question=QUESTION, references=("T",), answer=1)

test_conformance = metric_checks("choice_or_decline", examples=[EXAMPLE], texts=["The answer is B.", "The answer is C."])


def test_declining_is_neither_right_nor_an_answer() -> None:
    metric = ChoiceOrDecline(NoOptions())
    replies = ["The answer is B.", "The answer is A.", "The answer is C.", "The answer is C.", "no idea at all"]
    rows = [Scored(example=EXAMPLE, reply=Reply(text=r), score=score_of(metric, EXAMPLE, r)) for r in replies]
    assert [row.score.value for row in rows] == [1.0, 0.0, 0.0, 0.0, 0.0]
    # three of five are answers, an unreadable one among them; one of the three is right
    assert metric.extra_metrics(rows) == {"coverage": pytest.approx(3 / 5), "precision": pytest.approx(1 / 3)}
    assert metric.extra_metrics(rows[2:4]) == {"coverage": 0.0}  # a precision of nothing means nothing
    assert metric.extra_metrics([]) == {}


def test_without_such_an_option_it_is_plain_accuracy() -> None:
    plain = attrs.evolve(EXAMPLE, question=attrs.evolve(QUESTION, meta={}))
    metric = ChoiceOrDecline(NoOptions())
    rows = [Scored(example=plain, reply=Reply(text=r), score=score_of(metric, plain, r)) for r in ("B", "C")]
    assert metric.extra_metrics(rows) == {"coverage": 1.0, "precision": 0.5}


def test_a_question_without_a_right_option_is_not_scored() -> None:
    assert score_of(ChoiceOrDecline(NoOptions()), attrs.evolve(EXAMPLE, answer=None), "B").value is None
