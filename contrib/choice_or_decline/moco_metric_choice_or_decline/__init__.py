"""Multiple choice with an option to decline: accuracy, precision and coverage (LAB-Bench)."""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import Answer, Context, Example, Metric, NoOptions, Question, Reply, Score, Scored, hookimpl
from moco_toolkit_answers import canonical_choice, read_choice

__all__ = ["ChoiceOrDecline", "moco_metric"]


class ChoiceOrDecline(Metric[NoOptions]):
    """1 if the reply names the right option; declining is not right, but not wrong either (Laurent et al., arXiv 2407.10362).

    ``meta["decline"]`` of a question is the index of the option that declines. The score is accuracy, over all questions; the
    extra metrics are coverage, the share of questions that were answered, and precision, the share of those that were right.
    """

    def read(self, question: Question, text: str) -> Answer:
        """Return the option a reply names; the key is its index."""
        return read_choice(question, text)

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply; a question without choices, or without the index of the right one, is not scored."""
        question, gold = example.question, example.answer
        answer = read_choice(question, reply.text)
        if gold is None or not 0 <= gold < len(question.choices):
            context.warn(f"question {example.id!r} is not scored: it needs choices and the index of the right one")
            return Score(value=None, answer=answer)
        declined = reply.abstained or answer.key == str(question.meta.get("decline"))
        right = not declined and answer.key == str(canonical_choice(question, gold))
        return Score(value=float(right), answer=answer, meta={"declined": declined})

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """Coverage, and precision if anything was answered. A reply that cannot be read is an answer, and wrong."""
        scored = [row.score for row in rows if row.score.value is not None]
        given = [score.value or 0.0 for score in scored if not score.meta["declined"]]
        out = {"coverage": len(given) / len(scored)} if scored else {}
        return out | ({"precision": sum(given) / len(given)} if given else {})


@hookimpl
def moco_metric() -> type[ChoiceOrDecline]:
    return ChoiceOrDecline
