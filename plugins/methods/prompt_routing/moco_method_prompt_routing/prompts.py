"""The prompts of routing: plain text in, plain text out."""

from __future__ import annotations

__all__ = ["SELF_DESCRIPTION", "default_labels"]

SELF_DESCRIPTION = (
    "In one short sentence, say what kinds of questions you are good at. Reply with the sentence and nothing else."
)


def default_labels(count: int) -> tuple[str, ...]:
    """Return the labels of ``count`` models in list order: "1", "2", ..."""
    return tuple(str(number) for number in range(1, count + 1))
