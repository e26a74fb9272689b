"""What metrics with a judge share: filling a prompt with untrusted texts, and marks that such a text cannot close."""

from __future__ import annotations

import hashlib
import re

__all__ = ["fill", "mark_of"]

_SLOT = re.compile(r"\{(\w+)\}")


def fill(template: str, **values: str) -> str:
    """Put texts into ``{name}`` slots in one pass: braces and slots inside a text stay as they are."""
    return _SLOT.sub(lambda m: values.get(m[1], m[0]), template)


def mark_of(text: str) -> str:
    """Return a line to stand before and after ``text``, made of its own digest: the text cannot hold it."""
    return "=== " + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] + " ==="
