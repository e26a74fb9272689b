"""Secrets: strings that are opened where a request is made, and shown nowhere else.

Annotate an option with :class:`Secret` and the options machinery builds it from plain text::

    api_key: Secret | None = option(None, help="the key itself; prefer api_key_env")

It prints, formats, pickles and serialises as ``***``: run folders, observers, traces and fingerprints hold no more than
that, since all of them are made from :func:`moco_core.options.plain`. ``options.api_key.reveal()`` gives the text to the one
place that sends it. A secret that was masked when it was recorded, or carried into another process, is false and reveals
nothing; it has to be given again there, best by an environment variable.

What others write (a server's message, an exception, a log line) may repeat a secret in any form; pass it through
:func:`mask` before anybody sees it.
"""

from __future__ import annotations

import base64
import hmac
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

__all__ = ["MASK", "Secret", "is_secret_name", "looks_like_key", "mask", "masked"]

MASK = "***"


class Secret:
    """A string that shows itself to nobody but the caller of :meth:`reveal`. False if it is empty or masked."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; an empty one if it was masked."""
        return "" if self._text == MASK else self._text

    def __bool__(self) -> bool:
        return bool(self.reveal())

    def __str__(self) -> str:
        return MASK if self._text else ""

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self._text), _bytes(other._text))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (str(self),)


_NAME = re.compile(
    r"(?:^|_)(?:(?:api|access|account|auth|client|consumer|encryption|license|master|private|secret|service|shared|signing"
    r"|subscription)_?keys?|(?:access|api|auth|bearer|client|gateway|id|identity|refresh|security|session|user)_?tokens?"
    r"|auth|authorization|bearer|cookies?|credentials?|jwt|pass(?:word|wd|phrase)s?|pwd|secrets?|sig|signature)$"
    r"|^(?:x_)?(?:keys?|tokens?)$"
)
_KEY = re.compile(
    r"sk-\S{8,}|(?:sk|pk|rk|gsk|hf|xai|pplx|nvapi|tgp|fw|csk|r8|gh[opsu]|github_pat|glpat|xox[abp])[-_](?=\S*\d)\S{8,}"
    r"|AIza[\w-]{20,}|AKIA[A-Z0-9]{12,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"
)


def is_secret_name(name: str) -> bool:
    """Whether a header, query parameter or field of that name holds a secret: ``X-Api-Key``, ``access_token``, ``auth``."""
    return bool(_NAME.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).strip("_").lower()))


def looks_like_key(text: str) -> bool:
    """Whether a text has the form of a service's key (``sk-...``, a JSON web token) or stands behind ``Bearer``."""
    text = text.strip()
    return bool(_KEY.fullmatch(text) or _SCHEME.fullmatch(text))


def masked(value: Any, name: str = "") -> Any:
    """Return the options of a pool with texts under secret-looking keys masked: not every pool declares them as Secret."""
    if isinstance(value, Mapping):
        return {k: masked(v, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(v, name) for v in value]
    return MASK if isinstance(value, str) and value and is_secret_name(name) else value


_LETTERS = 12
"""A message that holds so many letters of a secret in a row, in whatever form, gives it away."""
_WORD = 8
"""Shorter secrets are words such as ``none`` or ``test``: masked where they stand alone."""
_TOO_SHORT = 4
"""Still shorter ones keep nothing from anybody, and would mask letters of every message."""
_GAPS = re.compile(r"\\[nrt]|[\s\\'\"`|│>\x00-\x1f\x7f\u200b\u200c\u200d\u2060\ufeff]")
_FOLD = str.maketrans("-_", "+/")  # the two alphabets of base64 are one
_AUTHORITY = re.compile(r"(?<=://)[^/\s@'\"]+@")
_SCHEME = re.compile(r"\b(bearer|basic)(\s+|%20|\+)(?=\S*\d)[\w.~+/=%-]{8,}", re.IGNORECASE)


def mask(text: str, secrets: Iterable[Secret | str]) -> str:
    """Return ``text`` with ``***`` wherever a secret, or a good part of one, stands.

    Found are the plain form, its repr or JSON, percent-encoding, base64 (alone or within a user and password), hexadecimal
    digits and HTML, each of them also where it is wrapped over lines. The user and password of an address and what follows
    ``Bearer`` or ``Basic`` are masked whoever they belong to.
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
    raw = _bytes(word)
    once = quote(raw, safe="")
    forms = [word, once, quote(raw), quote(once, safe=""), raw.hex(), html.escape(word)]
    for lead in range(3):  # where a key begins within what was encoded decides the letters
        code = base64.b64encode(b"\0" * lead + raw).decode().rstrip("=")
        # letters that also hold bits of what stands before or after the key are left out
        forms.append(code[(lead * 8 + 5) // 6 : (lead + len(raw)) * 8 // 6])
    for form in forms:
        found, _ = _letters(form)
        if len(found) >= _WORD:
            yield found


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
