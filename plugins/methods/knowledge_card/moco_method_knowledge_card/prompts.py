"""What cards, answerers and selectors read. Only who answers is told how to answer, once, after the passages."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from moco_core import Question
from moco_toolkit_quoting import Sheet, fence, quote

__all__ = ["answer", "bare", "choose_card", "knowledge", "more", "shorter", "true_or_false", "what_is_missing"]

NOTE = "Passages that may help; some may be wrong or have nothing to do with the question:"


def bare(question: Question) -> str:
    """Return the question with its choices and without the sentence that says how to answer."""
    return attrs.evolve(question, answer_format="").text()


def knowledge(question: Question) -> str:
    """Return the request for a passage: facts, not a verdict."""
    return (
        f"{bare(question)}\n\nWrite a short passage of background facts that help with this question. Do not answer it."
    )


def answer(question: Question, passages: Sequence[str]) -> Sheet:
    """Return what the answerer reads: the passages, and then the whole question."""
    return _with_passages(passages, question.text())


def more(question: Question, passages: Sequence[str]) -> Sheet:
    """Return the request to say whether something is missing."""
    request = "Do you need more information to answer this question? Reply with Yes or No."
    return _with_passages(passages, f"{bare(question)}\n\n{request}")


def what_is_missing(question: Question, passages: Sequence[str]) -> Sheet:
    """Return the request to say what is missing."""
    request = "What kind of information do you need to answer this question? Name it in a few words."
    return _with_passages(passages, f"{bare(question)}\n\n{request}")


def choose_card(question: Question, passages: Sequence[str], cards: Sequence[tuple[str, str]]) -> Sheet:
    """Return the request to name the source to ask, out of (name, description) pairs."""
    listed = "\n".join(f"- {name}: {text}" if text != name else f"- {name}" for name, text in cards)
    request = "Which of these sources do you want to ask? Reply with its name."
    return _with_passages(passages, f"{bare(question)}\n\nSources of information:\n{listed}\n\n{request}")


def shorter(passage: str) -> str:
    """Return the request to summarise a passage."""
    return f"{fence('passage', passage)}\n\nSum up this passage in one or two short sentences."


def true_or_false(passage: str, labels: Sequence[str]) -> str:
    """Return the question whether a passage is true, with its labels A and B."""
    listed = "\n".join(f"{letter}) {label}" for letter, label in zip("AB", labels, strict=True))
    return f"{fence('passage', passage)}\n\nIs this passage true or false?\n{listed}\nReply with A or B."


def _with_passages(passages: Sequence[str], text: str) -> Sheet:
    def compose(quotes: Sequence[str]) -> str:
        if not quotes:
            return text
        shown = "\n".join(quote(f"Passage {number}", passage) for number, passage in enumerate(quotes, 1))
        return f"{NOTE}\n{shown}\n\n{text}"

    return Sheet(passages, compose)
