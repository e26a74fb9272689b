"""Mathematical answers: where they stand in a reply, and their canonical keys."""

from __future__ import annotations

import re

from moco_core.types import Answer, Question
from moco_toolkit_answers.clean import plain_markdown, strip_outer, visible
from moco_toolkit_answers.evidence import SHORT, evidence, last_line
from moco_toolkit_answers.latex import math_key
from moco_toolkit_answers.numbers import NUMBER, find_numbers
from moco_toolkit_answers.phrases import AND, OR

__all__ = ["read_math"]

_SPAN = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
_OPEN_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(?!.*\\(?:boxed|fbox))", re.S)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}(?![A-Za-z}])")
_VALUE = r"(?:(?<![A-Za-z])[A-Za-z]\s?=\s?)?-?(?<![\d./])\d[\d./]*+"
_SEVERAL = re.compile(
    rf"{_VALUE}(?:\s*(?:[,;]\s*(?:(?:{AND}|{OR})\s*)?|(?:{AND}|{OR}|(?<=\s)(?:[yeou]|ou)\s)\s*){_VALUE})+(?![\w^])",
    re.I,
)
_NEAR = 200
_TEXT_GROUP = re.compile(r"\\(?:text|mathrm|textbf|mbox|operatorname)\s*\{[^{}]*\}")


def read_math(question: Question, text: str) -> Answer:
    """Read a mathematical answer: box, tag, ``####``, declared; else the last formula, short line or number."""
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    # Markdown marks inside formulas (x_1, 2*3) belong to the formula
    plain = plain_markdown(body) if "**" in body or "`" in body or "#" in body or "__" in body else body
    for piece in evidence(body, plain):
        if piece.kind == "line":
            return _from_line(body, plain, piece.text)
        captured = _formula(piece.text) if piece.kind == "declared" else piece.text
        key = math_key(captured) if captured else ""
        if key:
            return Answer(key=key, text=captured, status="parsed")
    return Answer()


def _formula(capture: str) -> str:
    """Return the formula of a declared answer: the whole capture if it is one, else its first formula or number."""
    spans = [next(g for g in m.groups() if g is not None) for m in _SPAN.finditer(capture)]
    if len(spans) > 1 and (joined := _joined_spans(capture)):
        return joined
    if spans:
        return strip_outer(spans[0])
    words = _WORD.findall(_TEXT_GROUP.sub("", capture))
    several = _SEVERAL.match(capture)
    if several:
        return several[0]
    if len(words) > 2 or (words and any(c.isdigit() for c in capture)):
        number = NUMBER.search(capture)
        if number is not None and len(words) > 1 and find_numbers(capture):
            return number[0].strip()
    return capture


def _joined_spans(text: str) -> str:
    """Return the last formulas of a text that nothing but commas and "and" or "or" stand between, as a list."""
    found: list[str] = []
    start = 0
    for match in reversed(list(_SPAN.finditer(text))):
        if found and not _JOINER.fullmatch(text[match.end() : start]):
            break
        found.append(next(g for g in match.groups() if g is not None).strip())
        start = match.start()
    return ", ".join(reversed(found)) if len(found) > 1 else ""


_JOINER = re.compile(rf"\s*(?:[,;]\s*(?:(?:{AND}|{OR}|[yeou]|ou)\s*)?|(?:{AND}|{OR}|[yeou]|ou)\s*)", re.I)
_NAME = re.compile(r"\s*([A-Za-z]\w*)(?:_\{?\w+\}?)?\s*=")


def _from_line(body: str, plain: str, line: str) -> Answer:
    if _OPEN_BOX.search(line) and "box" in line:
        return Answer(status="cut", text=line[:SHORT])
    last = last_line(plain)
    spans = [next(g for g in m.groups() if g is not None) for m in _SPAN.finditer(last)]
    captured = ""
    if (
        spans
        and (several_spans := _joined_spans(last))
        and len({m and m[1][0] for m in map(_NAME.match, several_spans.split(", "))}) == 1
    ):
        captured = several_spans
    elif spans:
        captured = strip_outer(spans[-1])
        if "=" in captured and not re.search(r"[<>]|\\[lg]e", captured):
            captured = captured.rpartition("=")[2].strip() or captured
    elif len(line) <= SHORT and len(_WORD.findall(_TEXT_GROUP.sub("", line))) <= 2:
        captured = line
    else:
        several = [m for m in _SEVERAL.finditer(last[-_NEAR:]) if not last[-_NEAR:][m.end() :].strip(" .!")]
        numbers = several or list(NUMBER.finditer(last)) or list(NUMBER.finditer(plain[-4000:]))
        if numbers:
            captured = numbers[-1][0].strip()
        elif len(line) <= SHORT:
            captured = line
    key = math_key(captured) if captured else ""
    if not key:
        return Answer(text=line[:SHORT])
    return Answer(key=key, text=captured, status="parsed")
