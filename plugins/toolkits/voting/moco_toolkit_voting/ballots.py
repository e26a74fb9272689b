"""From replies to ballots: the answers that are voted on, read as the run's metric reads them."""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import Answer, Context, Metric, Question
from moco_core.context import Judge
from moco_toolkit_voting.tally import Utility

__all__ = ["OPEN_KINDS", "ballots", "metric_utility"]

OPEN_KINDS = frozenset({"open", "code"})
"""Answer kinds where the whole reply is the answer, so that equality of keys says little."""


def ballots(context: Context, question: Question, texts: Sequence[str | None]) -> list[Answer]:
    """Return the answer of every reply, as the run's metric reads it; None and empty replies abstain.

    Where the whole reply is the answer (:data:`OPEN_KINDS`) a reply that the metric does not parse is its own answer.
    """
    out = []
    for text in texts:
        if text is None or not text.strip():
            out.append(Answer())
            continue
        answer = context.read(question, text)
        if not answer.parsed and question.answer_kind in OPEN_KINDS:
            answer = Answer(key=text.strip(), text=text.strip(), status="parsed")
        out.append(answer)
    return out


def metric_utility(metric: Judge, question: Question, answers: Sequence[Answer]) -> Utility | None:
    """Return the metric's utility as a function of keys, or None if it is equality of keys."""
    if type(metric).utility is Metric.utility:
        return None
    by_key = {answer.key: answer for answer in reversed(answers) if answer.key is not None}
    return lambda a, b: metric.utility(question, by_key[a], by_key[b])
