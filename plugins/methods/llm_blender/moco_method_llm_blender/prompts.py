"""What judges and fusers read: questions and replies as quotes under neutral labels, never the models' names."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from moco_core import Model, Question
from moco_toolkit_discussion import join
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN, Sheet, fence, quote, tail, transcript

__all__ = ["LABELS", "Budget", "comparison", "fusion"]

LABELS = ("A", "B")
_SPARE = 48  # tokens of what stands around question and replies


def comparison(source: str, a: str, b: str) -> Sheet:
    """Return what a judge reads of two replies; its verdict is one of the labels and nothing else."""

    def compose(quotes: Sequence[str]) -> str:
        return (
            f"Which reply answers the question better?\n{fence('question', source)}\n"
            + "\n".join(quote(f"Reply {label}", text) for label, text in zip(LABELS, quotes, strict=True))
            + "\nReply with A or B and nothing else."
        )

    return Sheet((a, b), compose)


def fusion(question: Question, candidates: Sequence[str]) -> Sheet:
    """Return what a fuser reads: the question and the best candidates, best first."""
    labels = [f"Candidate {number}" for number in range(1, len(candidates) + 1)]
    request = "Join what is right in these answers, leave out what is wrong, and give the one best answer."
    return join(question, "Candidate answers, best first:", labels, candidates, request)


@attrs.frozen(kw_only=True)
class Budget:
    """How many characters of question and of each reply a ranker reads."""

    source: int
    candidate: int

    @classmethod
    def of(cls, model: Model, source: int, candidate: int, reply: int = 0) -> Budget:
        """Return so many tokens of each, or as large a share of them as fits the model's context beside the reply."""
        share = 1.0
        if model.context_length is not None:
            share = min(share, max(0, model.context_length - reply - _SPARE) / (source + 2 * candidate))
        return cls(
            source=int(source * share * CHARACTERS_PER_TOKEN), candidate=int(candidate * share * CHARACTERS_PER_TOKEN)
        )

    def question(self, question: Question) -> str:
        """Return a question, or its end if it is too long: how to answer stands there."""
        return tail(transcript(question), self.source)

    def reply(self, text: str) -> str:
        """Return a reply, or its end if it is too long."""
        return tail(text, self.candidate)
