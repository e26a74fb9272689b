"""Quoting questions and replies inside prompts, so that nothing in them is read as markup."""

from moco_toolkit_quoting.asking import Asked, Sheet, ask, send
from moco_toolkit_quoting.budget import CHARACTERS_PER_TOKEN, LEAST, characters_per_token, fit_quotes, tail
from moco_toolkit_quoting.marks import escape, fence, quote, transcript

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "LEAST",
    "Asked",
    "Sheet",
    "ask",
    "characters_per_token",
    "escape",
    "fence",
    "fit_quotes",
    "quote",
    "send",
    "tail",
    "transcript",
]
