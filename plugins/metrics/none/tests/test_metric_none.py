"""No scoring gives None, not 0."""

from __future__ import annotations

from moco_core import Example, NoOptions, Question, Reply, Scored
from moco_metric_none import NoScore
from moco_toolkit_authoring import metric_checks, score_of

test_conformance = metric_checks("none")


def test_nothing_is_scored_and_nothing_counts() -> None:
    metric = NoScore(NoOptions())
    item = Example(question=Question(id="q", prompt="?", answer_kind="integer"), references=("3",))
    score = score_of(metric, item, "The answer is 3.")
    assert score.value is None
    assert score.answer.key == "3"
    assert metric.units([Scored(example=item, reply=Reply(text=""), score=score)]) == []
