"""Near-duplicates: items whose normalised question and options are the same."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

from moco_core import Example, Split

__all__ = ["DuplicateReport", "content_key", "normalised"]

_SHOWN = 20
_NOT_WORD = re.compile(r"[^\w+\-*/=<>^%$()\[\]{}.,|&~!]+", re.UNICODE)


def normalised(text: str) -> str:
    """Return a text with case folded, Unicode variants unified, quotes, colons and runs of space made one space.

    Signs that carry meaning in formulas, tables and code stay, so that two sums do not become one.
    """
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip(" .,!")


def content_key(example: Example) -> str:
    """Return 16 hexadecimal digits of a hash over the normalised question and its options, whatever their order."""
    question = example.question
    parts = [normalised(question.prompt), *sorted(normalised(c) for c in question.choices)]
    return hashlib.sha256("\x1e".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class DuplicateReport:
    """Counts repeated items within and across splits. It holds one 64-bit key per example that was yielded."""

    def __init__(self) -> None:
        self._seen: dict[Split, dict[int, str]] = {}
        self._within: dict[Split, list[list[str]]] = {}

    def start(self, split: Split) -> None:
        """Forget what is known of a split: it is read anew."""
        self._seen[split], self._within[split] = {}, []

    def add(self, split: Split, example: Example, key: str) -> None:
        number = int(key, 16)
        first = self._seen[split].setdefault(number, example.id)
        if first != example.id:
            self._within[split].append([first, example.id])

    def result(self) -> dict[str, Any]:
        """Return counts and the first pairs of ids; ``across`` is there once both splits were read."""
        out: dict[str, Any] = {split: _shown(pairs) for split, pairs in self._within.items()}
        if len(self._seen) == 2:
            dev, test = self._seen["dev"], self._seen["test"]
            out["across"] = _shown([[dev[k], test[k]] for k in dev.keys() & test.keys()])
        return out


def _shown(pairs: list[list[str]]) -> dict[str, Any]:
    return {"count": len(pairs), "ids": sorted(pairs)[:_SHOWN]}
