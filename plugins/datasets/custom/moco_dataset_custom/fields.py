"""Read questions, choices and answers out of rows of any shape."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from moco_core import Question
from moco_toolkit_answers import parse_number
from moco_toolkit_data import Row

__all__ = ["TRUTHS", "check_kind", "choice_index", "choice_texts", "filled", "reference_texts"]

TRUTHS = ("true", "false", "yes", "no", "correct", "incorrect")
_FIELD = re.compile(r"\{([^{}]+)\}")


def filled(row: Row, template: str) -> str:
    """Return a field, or a text whose ``{field}`` parts are replaced once: braces inside the fields stay as they are."""
    if not _FIELD.search(template):
        return row.text(template)
    return _FIELD.sub(lambda found: _plain(row, found[1], row[found[1]]), template)


def choice_texts(row: Row, fields: str | tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return labels and texts of the choices; without labels of their own they have A, B, C, ..."""
    if not isinstance(fields, str):
        texts = [_plain(row, f, row[f]) for f in fields]
        return _letters(texts)
    value = row[fields]
    if isinstance(value, str):
        value = row.parsed(fields)
    if isinstance(value, Mapping):
        return tuple(map(str, value)), tuple(_plain(row, f"{fields}.{k}", v) for k, v in value.items())
    if not isinstance(value, (list, tuple)) or not value:
        row.fail(fields, "expected a list of choices or an object from label to text")
    texts = [_plain(row, f"{fields}[{i}]", v) for i, v in enumerate(value)]
    return _letters(texts)


def choice_index(row: Row, field: str, labels: tuple[str, ...], texts: tuple[str, ...], first: int) -> int:
    """Return the index of the right choice, stated as a number, a label, the choice's text, or a number as text."""
    value = row[field]
    if isinstance(value, int) and not isinstance(value, bool):
        return _in_range(row, field, value - first, len(texts))
    stated = _plain(row, field, value)
    if stated in labels:
        return labels.index(stated)
    if texts.count(stated) == 1:
        return texts.index(stated)
    if not stated.isdecimal():
        row.fail(field, f"expected a label ({', '.join(labels)}), a choice or an index, got {stated!r}")
    return _in_range(row, field, int(stated) - first, len(texts))


def reference_texts(row: Row, field: str) -> list[str]:
    """Return the accepted answers; an empty list if there is none."""
    value = row[field]
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)  # tables write lists as JSON
        except ValueError:
            return [value]
    members = value if isinstance(value, (list, tuple)) else [value]
    return [text for text in (_plain(row, field, m) for m in members if not absent(m)) if text.strip()]


def absent(value: Any) -> bool:
    """Whether a value is how tables write that there is none: null, an empty text, or NaN."""
    return value is None or value == "" or value != value


def check_kind(row: Row, field: str, references: list[str], kind: str) -> None:
    """Refuse references that no reply of that kind can equal. Raises DatasetError naming file, row and field."""
    for text in references:
        number = parse_number(text, comma=kind == "decimal") if kind in ("integer", "decimal") else None
        if kind == "decimal" and number is None:
            row.fail(field, f"expected a number, for kind decimal, got {text!r}")
        if kind == "integer" and (number is None or number.denominator != 1):
            row.fail(field, f"expected a whole number, for kind integer, got {text!r}")
        if kind == "boolean" and text.strip().lower() not in TRUTHS:
            row.fail(field, f"expected one of {', '.join(TRUTHS)}, for kind boolean, got {text!r}")


def _plain(row: Row, field: str, value: Any) -> str:
    if not isinstance(value, (str, int, float)) or value != value:
        shown = "null" if value is None else "NaN" if value != value else type(value).__name__
        row.fail(field, f"expected text or a number, got {shown}")
    return str(value)


def _letters(texts: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return Question(id="", prompt="", choices=texts).letters, tuple(texts)


def _in_range(row: Row, field: str, index: int, count: int) -> int:
    if not 0 <= index < count:
        row.fail(field, f"no choice has this index; there are {count}")
    return index
