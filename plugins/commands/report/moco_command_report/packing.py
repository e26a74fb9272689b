"""What the page loads when it is wanted: replies and transcripts, in compressed blocks of a few questions each."""

from __future__ import annotations

import json
import math
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Blocks", "compressed"]

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
        self.place: dict[tuple[int, int], int] = {}
        self._begin()

    def _begin(self) -> None:
        self._texts: dict[str, int] = {}
        self._open: dict[tuple[int, int], Any] = {}
        self._size = 0

    def add(self, key: tuple[int, int], value: Any) -> None:
        """Add what belongs to a (section, question)."""
        if self.full:
            return
        self._open[key] = self._pack(value)
        self._size += len(json.dumps(self._open[key]))
        if self._size >= _BLOCK:
            self.close()

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

    def _pack(self, value: Any) -> Any:
        """Replace long texts by ``~`` and their number in the block; so are texts that begin with ``~``."""
        if isinstance(value, str):
            if len(value) < _SHARED and not value.startswith("~"):
                return value
            if value not in self._texts:
                self._texts[value] = len(self._texts)
                self._size += len(value)
            return f"~{self._texts[value]}"
        if isinstance(value, Mapping):
            return {str(k): self._pack(v) for k, v in value.items()}
        if isinstance(value, Sequence):
            return [self._pack(v) for v in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value
