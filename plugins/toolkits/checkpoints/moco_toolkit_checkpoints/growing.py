"""Replies that still grow: how much of a text stays as it is, whatever comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moco_toolkit_checkpoints.reasoning import split

__all__ = ["answer_so_far", "settled"]


def settled(text: str, marks: Iterable[str]) -> str:
    """Return a text that still grows without the end that may become something else: a character, or one of ``marks``."""
    text = text.rstrip("\ufffd")
    held = (
        size for mark in marks for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])
    )
    return text[: len(text) - max(held, default=0)]


def answer_so_far(text: str, stops: Sequence[str], tags: Sequence[tuple[str, str]], opened: str = "") -> str:
    """Return how the answer begins of a text that still grows and ends before the first stop string.

    ``tags`` and ``opened`` are those of :func:`moco_toolkit_checkpoints.reasoning.split`.
    """
    places = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    text = text[: min(places)] if places else settled(text, (*stops, *(tag for pair in tags for tag in pair)))
    return split(text, tags, opened)[1]
