"""How much of each quoted answer fits a model's context: what is too long keeps its tail, where conclusions stand."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moco_core import Generation

__all__ = ["CHARACTERS_PER_TOKEN", "LEAST", "characters_per_token", "fit_quotes", "tail"]

CHARACTERS_PER_TOKEN = 3.0
"""What is assumed of a tokenizer that nothing is known of: a cautious figure, English text has about four."""

LEAST = 8
"""How many tokens of a longer quote must be left for it to say anything."""

_ENOUGH = 32  # tokens from which on the text of a reply tells something
_DENSEST = 0.5  # characters per token
_CUT = "... "


def characters_per_token(prompt: str, generation: Generation | None) -> float:
    """Return how many characters a token of this model covers, measured on one call it has answered.

    The smaller figure of what it read and what it wrote, if it wrote enough to tell. The prompt's tokens include those of
    its chat template, so the figure errs on the small side.
    """
    if generation is None or not generation.usage.prompt_tokens:
        return CHARACTERS_PER_TOKEN
    usage = generation.usage
    read = len(prompt) / usage.prompt_tokens
    if usage.completion_tokens < _ENOUGH:
        return max(_DENSEST, read)
    written = (len(generation.text) + len(generation.reasoning)) / usage.completion_tokens
    return max(_DENSEST, min(read, written))


def tail(text: str, characters: int) -> str:
    """Return the last ``characters`` of a text, marked where it was cut; the whole text if it is not longer.

    Empty if there is no room beside the mark.
    """
    text = text.strip()
    if len(text) <= characters:
        return text
    kept = characters - len(_CUT)
    return _CUT + text[-kept:] if kept > 0 else ""


def fit_quotes(
    quotes: Sequence[str], *, context_length: int | None, max_new_tokens: int, fixed: str, ratio: float, shrink: int = 0
) -> list[str]:
    """Return the quoted answers cut to floor((context - max_new_tokens - fixed part) / N) tokens each.

    ``fixed`` is everything else the model reads, ``ratio`` its characters per token. ``shrink`` halves the budget that
    many times, for a tokenizer that turned out to need more. A model of unknown context gets everything until then.
    """
    longest = max((len(text) for text in quotes), default=0)
    if context_length is None:
        room = longest
    else:
        tokens = context_length - max_new_tokens - math.ceil(len(fixed) / ratio)
        room = max(0, math.floor(max(0, tokens) / max(1, len(quotes)) * ratio))
    room = min(room, longest) >> shrink
    return [tail(text, room) for text in quotes]
