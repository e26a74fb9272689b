"""Asking a language model who should answer: the prompt, and labels that make the choice exact.

The question may hold numbered options or instructions of its own, so it stands between delimiters that nothing in it can close.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from moco_toolkit_quoting import escape, fence

__all__ = ["route_prompt", "scoring_labels"]


def scoring_labels(count: int) -> tuple[str, ...]:
    """Return labels of which none begins another, single characters where possible: 1..9, else A..Z, else 001, 002, ...

    A number such as "1" is a beginning of "10", so its score would include the other's; these labels exclude each other
    as they are, whatever the router's tokenizer makes of them.
    """
    if count <= 9:
        return tuple(str(number) for number in range(1, count + 1))
    if count <= len(string.ascii_uppercase):
        return tuple(string.ascii_uppercase[:count])
    width = len(str(count))
    return tuple(str(number).zfill(width) for number in range(1, count + 1))


def route_prompt(question: str, descriptions: Sequence[str], labels: Sequence[str]) -> str:
    """Ask which model should answer ``question``; the wanted reply is one of ``labels`` and nothing else.

    ``descriptions`` and ``labels`` belong together position by position and are shown in that order; line breaks inside a
    description become spaces. Raises ValueError if their numbers differ or there are none.
    """
    if not labels or len(labels) != len(descriptions):
        raise ValueError(f"{len(descriptions)} descriptions need as many labels, and at least one; got {len(labels)}")
    pairs = zip(labels, descriptions, strict=True)
    rows = "\n".join(f"{label}: {escape(' '.join(text.split()))}" for label, text in pairs)
    return (
        "Which model should answer this question?\n"
        f"{fence('question', question)}\n"
        f"Models:\n{rows}\n"
        f"Reply with the label of the best model and nothing else: {', '.join(labels)}."
    )
