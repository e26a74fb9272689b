"""Multiple-choice accuracy: the option a reply names is the right one."""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import (
    Answer,
    Context,
    ContinuationScore,
    Example,
    Metric,
    NoOptions,
    Question,
    Reply,
    Score,
    Scored,
    hookimpl,
)
from moco_toolkit_answers import canonical_choice, read_choice

__all__ = ["MultipleChoice", "likelihood_choice", "moco_metric"]


class MultipleChoice(Metric[NoOptions]):
    """1 if the reply names the right option (or one with identical text), else 0.

    A reply without a readable option scores 0 with its own outcome: ``unparsed``, ``ambiguous``, ``cut``, ``invalid``.
    ``meta["chance"]`` is the accuracy of guessing on that question.
    """

    def read(self, question: Question, text: str) -> Answer:
        """Return the option a reply names; the key is its index."""
        return read_choice(question, text)

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply; a question without choices, or without the index of the right one, is not scored."""
        question, gold = example.question, example.answer
        if gold is None or not 0 <= gold < len(question.choices):
            context.warn(
                f"question {example.id!r} is not scored: the metric multiple_choice needs choices and the index of the "
                f"right one, got {len(question.choices)} choices and answer={gold}"
            )
            return Score(value=None, answer=read_choice(question, reply.text))
        answer = read_choice(question, reply.text)
        right = answer.key is not None and answer.key == str(canonical_choice(question, gold))
        return Score(value=float(right), answer=answer, meta={"chance": 1 / len(question.choices)})

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """The accuracy of guessing: the mean of 1 / n over the scored questions, of n options each."""
        chances = [float(r.score.meta["chance"]) for r in rows if r.score.value is not None]
        return {"chance": sum(chances) / len(chances)} if chances else {}


def likelihood_choice(scores: Sequence[ContinuationScore], choices: Sequence[str]) -> tuple[int, int]:
    """Return the options of highest log-probability: of the sum, and of the sum per byte of the option's text.

    ``scores`` are teacher-forced scores of the choices after one prompt; lm-evaluation-harness calls the accuracies of
    the two acc and acc_norm. Ties go to the first.
    """
    sums = [s.logprob for s in scores]
    per_byte = [s / max(1, len(c.encode())) for s, c in zip(sums, choices, strict=True)]
    return max(range(len(sums)), key=sums.__getitem__), max(range(len(sums)), key=per_byte.__getitem__)


@hookimpl
def moco_metric() -> type[MultipleChoice]:
    return MultipleChoice
