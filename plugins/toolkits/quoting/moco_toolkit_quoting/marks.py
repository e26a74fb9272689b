"""Marks: what is quoted stands between tags that nothing in it can close, and opens no chat turn."""

from __future__ import annotations

import re

from moco_core import Message, Question

__all__ = ["escape", "fence", "quote", "transcript"]

# A tag without attributes (`</quote>`, `<s>`, `<think>`), the start of a `<|control|>` token, or an `[INST]` mark.
_CONTROL = re.compile(r"<(?=[|｜]|/?[A-Za-z_]\w*>)|\[(?=/?INST\])")


def escape(text: str) -> str:
    """Put a space into every chat control mark and every bare tag of a text, so that none is read as one."""
    return _CONTROL.sub(lambda match: match.group() + " ", text)


def fence(tag: str, text: str) -> str:
    """Return a text between ``<tag>`` and ``</tag>``, which nothing in it can close."""
    return f"<{tag}>\n{escape(text.strip())}\n</{tag}>"


def quote(label: str, text: str) -> str:
    """Return one labelled, delimited, escaped text."""
    return f"{label}:\n{fence('quote', text)}"


def transcript(question: Question) -> str:
    """Return what a question asks as one text: its message alone, or, with a history, every turn after its role."""
    if not question.history:
        return question.text()
    turns = (*question.history, Message("user", question.text()))
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
