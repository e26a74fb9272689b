"""Text on a terminal: what models, servers and files wrote is shown as it is, and steers nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_STEERING = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls of C0 (but tab and line feed) and C1: escape sequences begin with them
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what changes the direction of the letters that follow
    r"\ud800-\udfff]"  # halves of pairs, which no terminal can be sent
)


def printable(text: str) -> str:
    """Return ``text`` with control characters, marks of direction and lone surrogates as ``\\u001b``, valid in JSON too."""
    return _STEERING.sub(lambda m: f"\\u{ord(m[0]):04x}", text.replace("\r\n", "\n"))


def say(console: Console, text: str) -> None:
    """Print a line of plain text; nothing in it is markup."""
    console.print(printable(text), markup=False, highlight=False)
