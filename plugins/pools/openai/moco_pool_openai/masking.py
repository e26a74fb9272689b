"""Texts that others wrote (a server's message, an exception, a log line) may repeat a key in any form: it is masked here."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from moco_core.secrets import MASK, Secret

__all__ = ["looks_like_key", "mask"]

_KEY = re.compile(
    r"sk-\S{8,}|(?:sk|pk|rk|gsk|hf|xai|pplx|nvapi|tgp|fw|csk|r8|gh[opsu]|github_pat|glpat|xox[abp])[-_](?=\S*\d)\S{8,}"
    r"|(?:dop_v1|esecret|cpk|npm|jina|lsv2|wandb_v\d)_(?=\S*\d)\S{8,}|(?:key|sess)-[0-9A-Za-z]{24,}|dapi[0-9a-f]{24,}"
    r"|AIza[\w-]{20,}|AQ\.[\w-]{20,}|ya29\.[\w-]{10,}|A[KS]IA[A-Z0-9]{12,}|ABSK[\w+/]{16,}=*"
    r"|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"
)


def looks_like_key(text: str) -> bool:
    """Whether a text has the form of a service's key (``sk-...``, a JSON web token) or stands behind ``Bearer``."""
    text = text.strip()
    return bool(_KEY.fullmatch(text) or _SCHEME.fullmatch(text))


_LETTERS = 12
"""A message that holds so many letters of a secret in a row, in whatever form, gives it away."""
_WORD = 8
"""Shorter secrets are words such as ``none`` or ``test``: masked where they stand alone."""
_TOO_SHORT = 4
"""Still shorter ones keep nothing from anybody, and would mask letters of every message."""
_GAPS = re.compile(r"\\[nrt]|[\s\\'\"`|│>,.:\x00-\x1f\x7f\u200b\u200c\u200d\u2060\ufeff]")
_ESCAPES = ("%{:02x}", "x{:02x}", "u{:04x}", "&#{};", "&#x{:x};", "{:03o}", "{}", "{:c}x00")  # a backslash is a gap
_FOLD = str.maketrans("-_", "+/")  # the two alphabets of base64 are one
_AUTHORITY = re.compile(r"(?<=://)[^/\s@'\"]+@")
_SCHEME = re.compile(r"\b(bearer|basic)(\s+|%20|\+)(?=\S*\d)[\w.~+/=%-]{8,}", re.IGNORECASE)


def mask(text: str, secrets: Iterable[Secret | str]) -> str:
    """Return ``text`` with ``***`` wherever a secret, or a good part of one, stands.

    Found are the plain form, its repr or JSON, percent-encoding, base64 (alone or within a user and password), hexadecimal
    digits, HTML and escapes of every letter, each of them also where it is wrapped over lines or cut into letters. The user
    and password of an address and what follows ``Bearer`` or ``Basic`` are masked whoever they belong to.
    """
    letters, places = _letters(text)
    hidden = bytearray(len(text))
    for secret in secrets:
        word = secret.reveal() if isinstance(secret, Secret) else secret
        word = word.strip()
        if len(word) < _TOO_SHORT:
            continue
        short = len(word) < _WORD
        for found in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)" if short else re.escape(word), text):
            hidden[found.start() : found.end()] = b"\x01" * len(found[0])
        if short:
            continue
        pieces = {form[i : i + _LETTERS] for form in _forms(word) for i in range(max(1, len(form) - _LETTERS + 1))}
        for size in {len(piece) for piece in pieces}:
            for start in range(len(letters) - size + 1):
                if letters[start : start + size] in pieces:
                    first, last = places[start], places[start + size - 1]
                    hidden[first : last + 1] = b"\x01" * (last + 1 - first)
    out = []
    for index, letter in enumerate(text):
        if not hidden[index]:
            out.append(letter)
        elif not index or not hidden[index - 1]:
            out.append(MASK)
    return _SCHEME.sub(rf"\1\2{MASK}", _AUTHORITY.sub(f"{MASK}@", "".join(out)))


def _letters(text: str) -> tuple[str, list[int]]:
    """Return a text without gaps, quotes and case, and the place in ``text`` of each of its letters."""
    places: list[int] = []
    at = 0
    for gap in _GAPS.finditer(text):
        places += range(at, gap.start())
        at = gap.end()
    places += range(at, len(text))
    folded = (text[i].lower() for i in places)
    return "".join(c if len(c) == 1 else "?" for c in folded).translate(_FOLD), places


def _forms(word: str) -> Iterator[str]:
    raw = word.encode("utf-8", "surrogatepass")
    once = quote(raw, safe="")
    forms = [word, once, quote(raw), quote(once, safe=""), raw.hex(), html.escape(word)]
    forms += ["".join(letter.format(byte) for byte in raw) for letter in _ESCAPES]
    forms += [base64.b32encode(raw).decode().rstrip("="), base64.b64encode(base64.b64encode(raw)).decode().rstrip("=")]
    for lead in range(3):  # where a key begins within what was encoded decides the letters
        code = base64.b64encode(b"\0" * lead + raw).decode().rstrip("=")
        # letters that also hold bits of what stands before or after the key are left out
        forms.append(code[(lead * 8 + 5) // 6 : (lead + len(raw)) * 8 // 6])
    for form in forms:
        found, _ = _letters(form)
        if len(found) >= _WORD:
            yield found
