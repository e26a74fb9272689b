"""Separating what a model thinks aloud from what it answers."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DEFAULT_TAGS", "left_open", "split"]

Tags = Sequence[tuple[str, str]]

DEFAULT_TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
)
"""Opening and closing tags in use by published reasoning models."""


def left_open(prompt: str, tags: Tags) -> str:
    """Return the closing tag of a block that a prompt ends inside of, else the empty string."""
    end = prompt.rstrip()
    return next((closing for opening, closing in tags if end.endswith(opening)), "")


def split(text: str, tags: Tags, opened: str = "") -> tuple[str, str]:
    """Return ``(reasoning, answer)`` of a reply.

    ``opened`` is the closing tag of a block that the prompt opened. A block that is never closed is all reasoning (the
    budget ran out while thinking: there is no answer); a closing tag without an opening one ends a block that the model
    began without saying so. A reply without tags is returned unchanged, as the answer.
    """
    thoughts: list[str] = []
    if opened:
        inner, found, text = text.partition(opened)
        thoughts.append(inner)
        if not found:
            return inner.strip(), ""
        text = text.lstrip()
    for opening, closing in tags:
        head, found, tail = text.partition(closing)
        if found and opening not in head:
            thoughts.append(head)
            text = tail.lstrip()
        while opening in text:
            before, _, rest = text.partition(opening)
            inner, found, after = rest.partition(closing)
            thoughts.append(inner)
            text = before + (after.lstrip() if found else "")
            if not found:
                text = text.rstrip()
                break
    if not thoughts:
        return "", text
    return "\n\n".join(t.strip() for t in thoughts if t.strip()), text
