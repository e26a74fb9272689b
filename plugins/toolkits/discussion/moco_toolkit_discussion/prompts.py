"""What models are shown of one another's answers: the prompts of refinement and of summary.

Quoted answers are data. Each stands in its own ```<quote>``` block, and whatever in it could end the block or open a
chat turn is broken up first. The question stays verbatim and the instruction comes last, so that cutting a quoted
answer never cuts either of them. Other models are numbered, never named.
"""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import Question
from moco_toolkit_quoting import Sheet, quote

__all__ = ["join", "refine", "summarise"]


def refine(question: Question, own: str | None, others: Sequence[str], numbers: Sequence[int] | None = None) -> Sheet:
    """Return what one model reads in a round of refinement.

    ``own`` is this model's last answer, or None where it has none; ``others`` are the last answers of the other models in
    the order in which they are to be shown, ``numbers`` what they are called (1, 2, ... if not given). Without others the
    model checks itself.
    """
    if others:
        heading = "Answers given so far:"
        request = "Check each answer; some may be wrong. Keep your own answer if it is right, else correct it."
        if own is None:
            request = "Check each answer; some may be wrong. Then answer the question yourself."
    else:
        heading = "Answer given so far:"
        request = "Check your own answer step by step. Keep it if it is right, else correct it."
    labels = [] if own is None else ["Your own answer"]
    labels += [f"Answer {number}" for number in numbers or range(1, len(others) + 1)]
    return join(question, heading, labels, [*([] if own is None else [own]), *others], request)


def summarise(question: Question, answers: Sequence[str]) -> Sheet:
    """Return what one model reads to write the final answer: the last answers of all models in the order of showing."""
    request = "Check each answer; some may be wrong. Give the one final answer that is best supported."
    labels = [f"Answer {number}" for number in range(1, len(answers) + 1)]
    return join(question, "Answers given so far:", labels, answers, request)


def join(
    question: Question, heading: str, labels: Sequence[str], texts: Sequence[str], request: str, *, answer: bool = True
) -> Sheet:
    """Return a question, labelled quotes under a heading and, at the end, a request.

    With ``answer`` the request closes with the sentence that says how to answer (the question's ``answer_format``).
    """
    request = " ".join(part for part in (request, question.answer_format.strip() if answer else "") if part)

    def compose(quotes: Sequence[str]) -> str:
        body = "\n".join([heading, *(quote(label, text) for label, text in zip(labels, quotes, strict=True))])
        return f"{question.text()}\n\n{body}\n\n{request}"

    return Sheet(texts, compose)
