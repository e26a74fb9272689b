"""Reading a route out of a router's reply."""

from __future__ import annotations

import re

from moco_toolkit_answers import strip_reasoning

__all__ = ["parse_route"]

# A whole number: no digit, letter or decimal point attached, so that neither "70B" nor "2.5" nor "v2" holds one.
_NUMBER = r"(?<![\w.,-])(\d+)(?![\w%]|[.,]\d)"
_WHOLE = re.compile(_NUMBER)
# "Model 2", "the answer is **2**", "choice: (2)", "label #2"
_LABELLED = re.compile(
    r"\b(?:model|answer|choice|label|option)\b[\s*_:=#(\[\"'`]*(?:(?:is|number|no\.?|model|would\s+be)\b[\s*_:=#(\[\"'`]*)*"
    + _NUMBER,
    re.IGNORECASE,
)
_AROUND = " \t\r\n.,:;!*_`'\"()[]{}#$"


def parse_route(reply: str, count: int) -> int | None:
    """Return the position (from 0) of the model that a reply names by its number in 1..``count``, or None.

    In order of evidence: the reply is one number; the last labelled number ("model 2"); the only whole number in the
    range. A stronger kind of evidence that is out of range is not overruled by a weaker one.
    """
    text = strip_reasoning(reply)
    if text is None:
        return None
    bare = text.strip(_AROUND)
    if bare.isascii() and bare.isdigit():
        return _position(bare, count)
    labelled = _LABELLED.findall(text)
    if labelled:
        return _position(labelled[-1], count)
    inside = {position for number in _WHOLE.findall(text) if (position := _position(number, count)) is not None}
    return inside.pop() if len(inside) == 1 else None


def _position(number: str, count: int) -> int | None:
    value = int(number) if len(number) <= 9 else 0
    return value - 1 if 1 <= value <= count else None
