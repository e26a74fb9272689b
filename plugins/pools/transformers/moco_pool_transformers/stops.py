"""Stop strings, found in decoded text."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers.decoders import DecodeStream

from moco_toolkit_checkpoints.rendering import Renderer

__all__ = ["StopWatch"]


class StopWatch:
    """Watches one reply for stop strings.

    A stop string may begin and end inside of tokens, so the search is on text: each token is decoded incrementally (pieces
    of characters are held back), and only the last ``longest - 1`` characters before the new ones are searched again. What
    is then cut is the text of *all* tokens decoded together, which alone is authoritative about spaces.
    """

    def __init__(self, renderer: Renderer, stops: Sequence[str]) -> None:
        self._renderer = renderer
        self._stops = tuple(s for s in stops if s)
        self._keep = max((len(s) for s in self._stops), default=1) - 1
        self._tail = ""
        self._stream = DecodeStream(skip_special_tokens=True) if renderer.fast is not None else None
        self._seen = 0
        self.text = ""
        self.found = ""

    def add(self, token: int, ids: Sequence[int]) -> bool:
        """Take note of the newest token of ``ids``; True if a stop string is complete, cut off in :attr:`text`."""
        if not self._stops:
            return False
        if self._stream is not None:
            new = self._stream.step(self._renderer.fast, token)
        else:  # a tokenizer written in Python decodes no stream: decode all, hold back what may still change
            whole = self._renderer.decode(ids)
            new = "" if whole.endswith("\ufffd") else whole[self._seen :]
            self._seen += len(new)
        if not new:
            return False
        searched = self._tail + new
        self._tail = searched[-self._keep :] if self._keep else ""
        return any(s in searched for s in self._stops) and self.flush(ids)

    def flush(self, ids: Sequence[int]) -> bool:
        """Search the text of ``ids`` as a whole; True if a stop string is in it."""
        whole = self._renderer.decode(ids)
        places = [(place, s) for s in self._stops if (place := whole.find(s)) >= 0]
        if not places:
            return False
        at = min(place for place, _ in places)
        self.found = max((s for place, s in places if place == at), key=len)
        self.text = whole[:at]
        return True
