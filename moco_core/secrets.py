"""Secrets: strings that are revealed where a request is made, and shown nowhere else.

Annotate an option with :class:`Secret` and the options machinery builds it from plain text::

    api_key: Secret | None = option(None, help="the key itself; prefer api_key_env")

It prints, formats, pickles and serialises as ``***``: run folders, observers, traces and fingerprints hold no more than
that, since all of them are made from :func:`moco_core.options.plain`. ``options.api_key.reveal()`` gives the text to the one
place that sends it. A secret that was masked when it was recorded, or carried into another process, is falsy and reveals
nothing; it has to be given again there, best by an environment variable.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"


class Secret:
    """A string that only :meth:`reveal` shows. Falsy if it is empty or masked."""

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
        return hmac.compare_digest(*(s._text.encode("utf-8", "surrogatepass") for s in (self, other)))

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


def is_secret_name(name: str) -> bool:
    """Return whether a header, query parameter or field of that name holds a secret: ``X-Api-Key``, ``access_token``."""
    return bool(_NAME.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).strip("_").lower()))


def masked(value: Any, name: str = "") -> Any:
    """Return the options of a pool with texts under secret-looking keys masked: not every pool declares them as Secret."""
    if isinstance(value, Mapping):
        return {k: masked(v, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(v, name) for v in value]
    return MASK if isinstance(value, str) and value and is_secret_name(name) else value
