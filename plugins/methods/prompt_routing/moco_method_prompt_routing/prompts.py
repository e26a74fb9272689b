"""The routing prompt: plain text in, plain text out.

The question may hold numbered options or instructions of its own, so it stands between delimiters that nothing in it
can close.
"""

from __future__ import annotations

from collections.abc import Sequence

from moco_toolkit_quoting import escape, fence

__all__ = ["SELF_DESCRIPTION", "default_labels", "route"]

SELF_DESCRIPTION = (
    "In one short sentence, say what kinds of questions you are good at. Reply with the sentence and nothing else."
)


def default_labels(count: int) -> tuple[str, ...]:
    """Return the labels of ``count`` models in list order: "1", "2", ..."""
    return tuple(str(number) for number in range(1, count + 1))


def route(question: str, descriptions: Sequence[str], labels: Sequence[str]) -> str:
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
