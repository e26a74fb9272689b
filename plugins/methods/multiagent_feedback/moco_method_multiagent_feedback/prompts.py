"""What reviewers, authors, area chairs and challengers read. Reviewers and challengers are never told how to answer."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from moco_core import Question
from moco_toolkit_discussion import join
from moco_toolkit_quoting import Sheet

__all__ = ["VERDICTS", "challenge", "challenged", "knowledge", "review", "reviewer", "revise", "unformatted", "verdict"]

VERDICTS = (("true", "false"), ("false", "true"))
"""Both orders of the area chair's labels A and B."""


def unformatted(question: Question) -> Question:
    """Return a question without the sentence that says how to answer."""
    return attrs.evolve(question, answer_format="")


def review(question: Question, answer: str, passage: str = "") -> Sheet:
    """Return what a reviewer reads: one answer, and the knowledge it has written down before, if any."""
    labels, texts = (["What you know", "Answer"], [passage, answer]) if passage else (["Answer"], [answer])
    request = "Judge whether this answer is correct. Name the first error, if there is one, and say how to correct it."
    return join(unformatted(question), "Answer to review:", labels, texts, request)


def reviewer(perspective: str) -> str:
    """Return the role of a model that reviews itself."""
    return f"You review answers from a {perspective} perspective."


def knowledge(question: Question, perspective: str) -> str:
    """Return the request for a short passage of knowledge before a self-review."""
    return (
        f"{unformatted(question).text()}\n\nWrite down, in a few sentences, what helps to judge answers to this from a "
        f"{perspective} perspective. Do not answer it."
    )


def revise(question: Question, own: str, reviews: Sequence[str]) -> Sheet:
    """Return what an author reads: its own answer and the reviews of it, in the order in which they are to be shown."""
    labels = ["Your own answer", *(f"Review {number}" for number in range(1, len(reviews) + 1))]
    request = "Weigh the reviews; some may be wrong. Keep your own answer if it is right, else correct it."
    return join(question, "Your answer and its reviews:", labels, [own, *reviews], request)


def verdict(question: Question, answer: str, reviews: Sequence[str], labels: Sequence[str]) -> Sheet:
    """Return what the area chair reads: an answer, its reviews, and the two labels A and B."""
    names = ["Proposed answer", *(f"Review {number}" for number in range(1, len(reviews) + 1))]
    request = (
        "Some reviews may be wrong. Is the proposed answer true or false?\n"
        + "\n".join(f"{letter}) {label}" for letter, label in zip("AB", labels, strict=True))
        + "\nReply with A or B."
    )
    return join(unformatted(question), "A proposed answer and its reviews:", names, [answer, *reviews], request)


def challenge(question: Question, choice: int) -> str:
    """Return the request for a passage that supports another choice than the proposed one."""
    return (
        f"{unformatted(question).text()}\n\nWrite a short passage of knowledge from which it follows that the answer is "
        f"{question.letters[choice]}) {question.choices[choice]}"
    )


def challenged(question: Question, passage: str) -> Sheet:
    """Return what the proposer reads when it is challenged."""
    return join(question, "A passage that may be wrong:", ["Passage"], [passage], "Answer the question.")
