"""What a switcher reads, and the labels among which it chooses."""

from __future__ import annotations

import string
from collections.abc import Sequence

from moco_core import Message, Question

__all__ = ["conversation", "labels_of"]

REQUEST = """Several language models write a response together, one part at a time.
Name the model that writes the next part best.

Models:
{models}

Question: {question}

Response so far:
{response}

Answer with the {label} of the model that goes on, nothing else."""
TAGGED_REQUEST = "Which model writes the next part?"
TAGGED_ANSWER = "The answer is model"


def labels_of(writers: int) -> list[str]:
    """Return one label per writer, none of which begins another: digits, else letters, else numbers of equal length."""
    if writers <= 10:
        return [str(i) for i in range(writers)]
    if writers <= len(string.ascii_uppercase):
        return list(string.ascii_uppercase[:writers])
    return [f"{i:0{len(str(writers - 1))}d}" for i in range(writers)]


def conversation(
    question: Question, descriptions: Sequence[str], patches: Sequence[tuple[int, str]], *, tags: bool
) -> list[Message]:
    """Return what a switcher is asked: the models, the question, and the patches so far, each ``(writer, text)``.

    With ``tags`` each patch stands between the tags of its model, and the switcher goes on after "The answer is model".
    """
    labels = labels_of(len(descriptions))
    if tags:
        told = "\n".join(f"<model {labels[i]} begins> {text.strip()} <model {labels[i]} ends>" for i, text in patches)
        asked = "\n\n".join(part for part in (question.text(), told, TAGGED_REQUEST) if part)
        return [Message("user", asked), Message("assistant", TAGGED_ANSWER)]
    models = "\n".join(f"{label}: {text}" for label, text in zip(labels, descriptions, strict=True))
    response = "\n".join(f"[{labels[i]}] {text.strip()}" for i, text in patches) or "(nothing yet)"
    label = "number" if labels[0].isdigit() else "letter"
    return [Message("user", REQUEST.format(models=models, question=question.text(), response=response, label=label))]
