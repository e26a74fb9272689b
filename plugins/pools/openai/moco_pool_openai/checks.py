"""What is wrong with an address, a header or a name: one clause each, and never the secret that stands in it."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from moco_core.secrets import MASK, is_secret_name
from moco_pool_openai.masking import looks_like_key, mask

__all__ = ["address_problem", "header_problem", "named_variable_problem", "public_problem", "strings"]

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRINTED = re.compile(r"[\x20-\x7e]*")


def address_problem(value: str) -> str | None:
    """Return what is wrong with the address of an API."""
    if not value:
        return None
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        parts = urlsplit("")
    if parts.username or parts.password:
        return "expected an address without a password in it; name the variable that holds the key with api_key_env"
    query = parse_qsl(parts.query, keep_blank_values=True)
    pieces = [*parts.path.split("/"), parts.fragment, *(v for _, v in query)]
    if any(is_secret_name(name) for name, _ in query) or any(looks_like_key(unquote(piece)) for piece in pieces):
        return (
            "expected an address without a key in it; name the variable that holds the key with api_key_env, or with "
            "headers: {NAME: $VARIABLE}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f\x7f]", value):
        shown = MASK if looks_like_key(value) else mask(value, [])
        return f"expected an address such as http://127.0.0.1:8000/v1, got {shown!r}"
    return None


def named_variable_problem(value: str) -> str | None:
    """Return what is wrong with the name of an environment variable: it may be the key itself."""
    if not value or value in os.environ:
        return None
    if looks_like_key(value) or not _VARIABLE.fullmatch(value) or _random(value):
        return (
            "expected the name of an environment variable, such as OPENAI_API_KEY; what was given looks like the key itself "
            "and is not shown: put the key into a variable and name that"
        )
    return None


def _random(text: str) -> bool:
    """Whether a text is long, of letters and digits in turn, and nothing that anybody calls a variable."""
    changes = sum(a.isdigit() != b.isdigit() for a, b in itertools.pairwise(text))
    return len(text) >= 20 and changes >= 4 and text.upper() != text


def header_problem(value: Mapping[str, str]) -> str | None:
    """Return what is wrong with further headers: keys are named by ``$VARIABLE``, never written down."""
    for name, text in value.items():
        if not _HEADER.fullmatch(name) or not _PRINTED.fullmatch(text):
            return f"header {name!r}: expected printable ASCII, without line ends"
        if text.startswith("$"):
            if problem := named_variable_problem(text[1:]) or (text == "$" and "expected $NAME"):
                return f"header {name!r}: {problem}"
        elif text and (is_secret_name(name) or looks_like_key(text)):
            return (
                f"header {name!r}: a key is not written into a configuration, which is kept; put it into an environment "
                f"variable and give {{{name}: $VARIABLE}}"
            )
    return None


def public_problem(value: Mapping[str, Any]) -> str | None:
    """Return what is wrong with fields of a request: they are kept in run folders, so that no key may be among them."""
    for path, text in strings(value):
        name = re.sub(r"\[\d+\]$", "", path).rpartition(".")[2]
        if text and (is_secret_name(name) or looks_like_key(text)):
            return (
                f"{path}: looks like a key, and fields of requests are kept; put it into an environment variable and send it "
                "with headers: {NAME: $VARIABLE}"
            )
    return None


def strings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in JSON data, each with its dotted path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from strings(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from strings(inner, f"{path}[{index}]")
