"""Reading which of two a judge has named."""

from __future__ import annotations

import re

__all__ = ["parse"]

_WRAPPED = re.compile(r"[\s\"'`*_()\[\]{}.:]*([AB])[\s\"'`*_()\[\]{}.:]*")
_FIELD = re.compile(
    r"\b(?i:verdict|answer|winner|choice|decision|final|better)\b(?:\s+(?i:reply|candidate|answer|verdict|one))?"
    r"(?:\s+(?i:is)\b|\s*[:=])[\s\"'`*_(\[]*(?:(?i:reply|candidate|answer|option)\s+)?[\"'`*_(\[]*"
    r"([AB])\b(?!\s*(?:or|and|/|,|&)\s*[AB]\b)(?!\s+[a-z])"
)
_ALONE = re.compile(r"(?<![\w'])([AB])(?![\w'])")
_OPENS = re.compile(r"(?:^|[.!?:\n]\s*)$")


def parse(reply: str) -> int:
    """Return 1 if a judge's reply names A, -1 for B, 0 if it cannot be read.

    In this order: a reply that is only the letter, but for quotes, brackets and emphasis; the last explicit field
    ("Verdict: B"); exactly one letter that stands alone, in upper case. An A that opens a sentence before a lower-case word
    is never a verdict: it may be the article.
    """
    if found := _WRAPPED.fullmatch(reply):
        return _sign(found[1])
    if fields := _FIELD.findall(reply):
        return _sign(fields[-1])
    alone = [(m[1], _follower(m, reply)) for m in _ALONE.finditer(reply)]
    letters = [(letter, word) for letter, word in alone if word in ("", "is", "was", "or", "and")]
    return _sign(letters[0][0]) if len(letters) == 1 and not letters[0][1] else 0


def _follower(found: re.Match[str], reply: str) -> str:
    """Return the lower-case word after an A that opens a sentence; empty for a letter that is surely none of these."""
    word = re.match(r"\s+([a-z]\w*)", reply[found.end() :])
    opens = found[1] == "A" and _OPENS.search(reply[: found.start()]) is not None
    return word[1] if word and opens else ""


def _sign(letter: str) -> int:
    return 1 if letter == "A" else -1
