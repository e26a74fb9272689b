"""No scoring: replies are stored and no score is reported."""

from __future__ import annotations

from moco_core import Answer, Context, Example, Metric, NoOptions, Question, Reply, Score, hookimpl
from moco_toolkit_answers import read

__all__ = ["NoScore", "moco_metric"]


class NoScore(Metric[NoOptions]):
    """Gives no score, on any split: the value is None, which is not 0."""

    def read(self, question: Question, text: str) -> Answer:
        """Return the answer a reply gives, read by the question's kind."""
        return read(question, text)

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Return a score without a value."""
        return Score(value=None, answer=read(example.question, reply.text))


@hookimpl
def moco_metric() -> type[NoScore]:
    return NoScore
