"""Stop strings, found in decoded text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tokenizers.decoders import DecodeStream

__all__ = ["Decoding", "StopWatch"]


class Decoding(Protocol):
    """What a stop watch needs of a loaded model; see :class:`moco_toolkit_checkpoints.local.Loaded`."""

    @property
    def tokenizer(self) -> Any: ...

    def decode(self, ids: Sequence[int], *, tags: bool = False) -> str: ...


class StopWatch:
    """Watches one reply for stop strings.

    A stop string may begin and end inside of tokens, so the search is on text: each token is decoded incrementally (pieces
    of characters are held back), and only the last ``longest - 1`` characters before the new ones are searched again. What
    is then cut is the text of *all* tokens decoded together, which alone is authoritative about spaces. Special tokens are
    no text, unless they mark reasoning: then nobody would otherwise see where it ends.
    """

    def __init__(self, loaded: Decoding, stops: Sequence[str]) -> None:
        self._decode = loaded.decode
        self._stops = tuple(s for s in stops if s)
        self._keep = max((len(s) for s in self._stops), default=1) - 1
        self._tail = ""
        added = getattr(loaded.tokenizer, "added_tokens_decoder", {})
        self._special = frozenset(int(i) for i, token in added.items() if token.special)
        self._fast: Any = getattr(loaded.tokenizer, "_tokenizer", None)
        self._stream = DecodeStream(skip_special_tokens=True) if self._fast is not None else None
        self._seen = 0
        self.text = ""
        self.found = ""

    def add(self, token: int, ids: Sequence[int]) -> bool:
        """Take note of the newest token of ``ids``; True if a stop string is complete, cut off in :attr:`text`."""
        if not self._stops:
            return False
        if (
            self._stream is None
        ):  # a tokenizer written in Python decodes no stream: decode all, hold back what may change
            whole = self._decode(ids, tags=True)
            new = "" if whole.endswith("\ufffd") else whole[self._seen :]
            self._seen += len(new)
        elif token in self._special:
            new = self._decode([token], tags=True)
        else:
            new = self._stream.step(self._fast, token) or ""
        if not new:
            return False
        searched = self._tail + new
        self._tail = searched[-self._keep :] if self._keep else ""
        return any(s in searched for s in self._stops) and self.flush(ids)

    def flush(self, ids: Sequence[int]) -> bool:
        """Search the text of ``ids`` as a whole; True if a stop string is in it."""
        whole = self._decode(ids, tags=True)
        places = [(place, s) for s in self._stops if (place := whole.find(s)) >= 0]
        if not places:
            return False
        at = min(place for place, _ in places)
        self.found = max((s for place, s in places if place == at), key=len)
        self.text = whole[:at]
        return True
