"""What the page loads when it is wanted: replies and transcripts, in compressed blocks of a few questions each."""

from __future__ import annotations

import json
import math
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Blocks", "Key", "compressed"]

Key = tuple[int, int]
_BLOCK = 48_000
"""Characters of JSON from which on a block is closed: a few milliseconds to open."""
_SHARED = 16
"""Texts from this length on stand in a block once."""


def compressed(value: Any, level: int = 9) -> bytes:
    """Return JSON as base64 of a zlib stream: nothing in it can be mistaken for HTML."""
    # lone surrogates, which models may write, are no UTF-8: escapes carry them
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    data = text.encode("utf-8") if text.isascii() or _valid(text) else json.dumps(value).encode()
    return b64encode(zlib.compress(data, level))


def _valid(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Blocks:
    """Fills blocks until ``room`` bytes are used; what comes later is left out. ``place`` maps keys to blocks."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.full = False
        self.done: list[bytes] = []
        self.place: dict[Key, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._texts: dict[str, int] = {}
        self._open: dict[Key, Any] = {}
        self._size = 0

    def add(self, key: Key, value: Any, known: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """Add what belongs to a (section, question), and return the texts of its block by their numbers.

        ``known`` are those of another block, which will be read with this one: they are not written again.
        """
        texts = self._texts
        if not self.full:
            self._open[key] = self._pack(value, known or {})
            self._size += len(json.dumps(self._open[key]))
            if self._size >= _BLOCK:
                self.close()
        return texts

    def close(self) -> None:
        """Close the open block, if it fits."""
        if not self._open or self.full:
            return
        body = {"x": list(self._texts), "q": {f"{s}.{q}": value for (s, q), value in self._open.items()}}
        block = compressed(body, 7)
        if len(block) > self.room:
            self.full = True
        else:
            self.room -= len(block)
            self.place |= dict.fromkeys(self._open, len(self.done))
            self.done.append(block)
        self._begin()

    def _pack(self, value: Any, known: Mapping[str, int]) -> Any:
        """Replace long texts by ``~`` and their number, or by ``^`` and that in the other block; so are texts that begin so."""
        if isinstance(value, str):
            if len(value) < _SHARED and not value.startswith(("~", "^")):
                return value
            if value in known:
                return f"^{known[value]}"
            if value not in self._texts:
                self._texts[value] = len(self._texts)
                self._size += len(value)
            return f"~{self._texts[value]}"
        if isinstance(value, Mapping):
            return {str(k): self._pack(v, known) for k, v in value.items()}
        if isinstance(value, Sequence):
            return [self._pack(v, known) for v in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value
