"""What the aggregator reads: question, numbered solutions, and what it is to write; the same in fit and respond."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from moco_core import Message, Model, PromptTooLong, Question
from moco_toolkit_discussion import join
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN, LEAST, Sheet, fit_quotes

__all__ = ["VERSION", "Room", "sheet"]

VERSION = 1
"""Raised when the prompt changes: an aggregator that was trained on another one is refused."""

_REQUEST = (
    "Any, all or none of these solutions may be right. Check each, keep what is right, correct what is wrong, and write one "
    "complete and correct solution."
)


def sheet(question: Question, solutions: Sequence[str]) -> Sheet:
    """Return question, numbered solutions and request, the solutions in full."""
    labels = [f"Solution {number}" for number in range(1, len(solutions) + 1)]
    return join(question, "Candidate solutions:", labels, solutions, _REQUEST)


@attrs.frozen(kw_only=True)
class Room:
    """How much an aggregator can read: ``prompt`` tokens of a prompt, before a reply of ``reply`` tokens.

    ``ratio`` is the aggregator's characters per token, as far as it is known.
    """

    prompt: int
    reply: int
    ratio: float = CHARACTERS_PER_TOKEN

    @classmethod
    def of(cls, model: Model, max_prompt: int, reply: int, ratio: float = CHARACTERS_PER_TOKEN) -> Room:
        """Return the room of a model's context, of which ``max_prompt`` tokens at most are used for the prompt."""
        prompt = max_prompt if model.context_length is None else min(max_prompt, model.context_length - reply)
        return cls(prompt=prompt, reply=reply, ratio=ratio)

    @property
    def total(self) -> int:
        return self.prompt + self.reply

    def fit(self, question: Question, solutions: Sequence[str]) -> Sheet:
        """Return the sheet with every solution cut to an equal share of the tokens that are left; the ends are kept.

        Raises PromptTooLong, with the numbers, where that leaves next to nothing of one.
        """
        cut = fit_quotes(
            solutions,
            context_length=self.total,
            max_new_tokens=self.reply,
            fixed=_fixed(question, len(solutions)),
            ratio=self.ratio,
        )
        least = math.floor(LEAST * self.ratio)
        if any(len(kept) < min(len(text), least) for kept, text in zip(cut, solutions, strict=True)):
            raise PromptTooLong(f"agglm: {self._shortage(question, len(solutions))}")
        return sheet(question, cut)

    def messages(self, question: Question, solutions: Sequence[str]) -> tuple[Message, ...]:
        """Return the conversation that asks for the final solution."""
        return (*question.messages()[:-1], Message("user", self.fit(question, solutions).whole))

    def problem(self, question: Question, m: int) -> str | None:
        """Return why m solutions cannot be shown beside a question, with the numbers; None if they can."""
        return self._shortage(question, m) if self._left(question, m) < m * LEAST else None

    def _left(self, question: Question, m: int) -> int:
        return self.prompt - math.ceil(len(_fixed(question, m)) / self.ratio)

    def _shortage(self, question: Question, m: int) -> str:
        left = self._left(question, m)
        return (
            f"a prompt may have {self.prompt} tokens, beside {self.reply} of the reply; question {question.id!r} and the "
            f"instruction take about {self.prompt - left}, which leaves {max(0, left)} for {m} solutions (at least {LEAST} "
            "each); lower m or max_new_tokens, or choose an aggregator with a longer context"
        )


def _fixed(question: Question, m: int) -> str:
    """Return all that is read beside the solutions."""
    return "\n".join([*(turn.content for turn in question.messages()[:-1]), sheet(question, [""] * m).whole])
