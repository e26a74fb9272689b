"""What critics read of the other agents, and what a summary of these is asked for by."""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import Question
from moco_toolkit_discussion import join
from moco_toolkit_quoting import Sheet

__all__ = ["summary", "update", "update_from_summary"]

_UPDATE = "Use this as additional information: check it and your own answer, and give your updated answer."


def update(question: Question, others: Sequence[str]) -> Sheet:
    """Return what a critic reads: the others' last replies, in the order in which they are to be shown."""
    return join(question, "What the other agents answered:", _numbered(others), others, _UPDATE)


def update_from_summary(question: Question, told: str) -> Sheet:
    """Return what a critic reads: a summary of the others' last replies."""
    return join(question, "What the other agents answered, in sum:", ["Summary"], [told], _UPDATE)


def summary(question: Question, others: Sequence[str]) -> Sheet:
    """Return the request for a summary of replies; it is not told how to answer."""
    request = "Sum up these answers in a few sentences: which final answers they give, and by what reasons."
    return join(question, "Answers given by several agents:", _numbered(others), others, request, answer=False)


def _numbered(texts: Sequence[str]) -> list[str]:
    return [f"Answer {number}" for number in range(1, len(texts) + 1)]
