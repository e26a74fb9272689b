"""What a model reads of the layer before it."""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import Message, Question
from moco_toolkit_quoting import Sheet, quote

__all__ = ["arrange", "sheet"]

_REQUEST = (
    "Other models have answered the user's question; their answers follow. Write one answer that is better than each of them. "
    "Judge what they say: any of it may be mistaken or one-sided, and several may share a mistake. Do not just repeat one. "
    "Answer in the form that the question asks for."
)


def sheet(references: Sequence[str]) -> Sheet:
    """Return the instruction followed by the numbered references."""

    def compose(quotes: Sequence[str]) -> str:
        numbered = (quote(f"Answer {number}", text) for number, text in enumerate(quotes, 1))
        return "\n\n".join([_REQUEST, *numbered])

    return Sheet(references, compose)


def arrange(question: Question, references: str, role: str) -> list[Message]:
    """Return the conversation that asks the question with references, in the system message or before the question."""
    *before, last = question.messages()
    if role == "user":
        return [*before, Message("user", f"{references}\n\n{last.content}")]
    if before and before[0].role == "system":
        return [Message("system", f"{before[0].content}\n\n{references}"), *before[1:], last]
    return [Message("system", references), *before, last]
