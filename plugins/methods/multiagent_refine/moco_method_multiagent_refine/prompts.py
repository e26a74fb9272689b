"""The prompts of multi-agent refinement: plain text in, plain text out.

Quoted answers are data. Each stands in its own ```<quote>``` block, and whatever in it could end the block or open a
chat turn is broken up first. The question stays verbatim and the instruction comes last, so that cutting a quoted
answer never cuts either of them. Other models are numbered, never named.
"""

from __future__ import annotations

from collections.abc import Sequence

from moco_toolkit_quoting import fence

__all__ = ["quote", "refine", "summarise"]


def quote(label: str, text: str) -> str:
    """Return one labelled, delimited, escaped answer."""
    return f"{label}:\n{fence('quote', text)}"


def refine(question: str, own: str | None, others: Sequence[str], answer_format: str = "") -> str:
    """Return the prompt of one refinement round for one model.

    ``question`` is the whole task prompt and ``answer_format`` the sentence that says how to end the reply (empty where the
    question already says it). ``own`` is this model's last answer, or None where it has none; ``others`` are the last
    answers of the other models in the order in which they are to be shown. Without others the model checks itself.
    """
    quotes = [] if own is None else [quote("Your own answer", own)]
    quotes += [quote(f"Answer {number}", text) for number, text in enumerate(others, 1)]
    if others:
        heading = "Answers given so far:"
        request = "Check each answer; some may be wrong. Keep your own answer if it is right, else correct it."
        if own is None:
            request = "Check each answer; some may be wrong. Then answer the question yourself."
    else:
        heading = "Answer given so far:"
        request = "Check your own answer step by step. Keep it if it is right, else correct it."
    return _join(question, heading, quotes, request, answer_format)


def summarise(question: str, answers: Sequence[str], answer_format: str = "") -> str:
    """Return the prompt that asks one model for the final answer, given the last answers of all models in showing order."""
    quotes = [quote(f"Answer {number}", text) for number, text in enumerate(answers, 1)]
    request = "Check each answer; some may be wrong. Give the one final answer that is best supported."
    return _join(question, "Answers given so far:", quotes, request, answer_format)


def _join(question: str, heading: str, quotes: Sequence[str], request: str, answer_format: str) -> str:
    body = "\n".join([heading, *quotes])
    return f"{question}\n\n{body}\n\n{' '.join(part for part in (request, answer_format.strip()) if part)}"
