"""Replies that are sent as they are written: what has grown, told from the engines' threads, taken in the server's loop."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

__all__ = ["Growing"]


class Growing:
    """The replies of one request, as far as they are known. ``sent`` is what was taken of each."""

    def __init__(self, count: int) -> None:
        self.id = uuid.uuid4().hex
        self.sent = [""] * count
        self.changed = asyncio.Event()
        self._known = [""] * count
        self._loop = asyncio.get_running_loop()

    def tell(self, index: int, text: str) -> None:
        """Say what a reply is so far; safe to call from any thread."""
        with contextlib.suppress(RuntimeError):  # the server has gone
            self._loop.call_soon_threadsafe(self._grow, index, text)

    def _grow(self, index: int, text: str) -> None:
        if len(text) > len(self._known[index]) and text.startswith(self._known[index]):
            self._known[index] = text
            self.changed.set()

    def take(self) -> list[tuple[int, str, bool]]:
        """Return what is new: index, text, and whether it is the first of that reply."""
        self.changed.clear()
        out = []
        for index, (known, sent) in enumerate(zip(self._known, self.sent, strict=True)):
            if known != sent:
                out.append((index, known[len(sent) :], not sent))
                self.sent[index] = known
        return out
