"""Sequences of tokens: words in an order, closing brackets; in one line or one item a line."""

from __future__ import annotations

import re

from moco_core.types import Answer, Question
from moco_toolkit_answers.clean import strip_emphasis, visible
from moco_toolkit_answers.evidence import evidence, last_line
from moco_toolkit_answers.phrases import AND

__all__ = ["read_tokens", "token_list"]

_BRACKETS = "()[]{}<>"
_BRACKET_RUN = re.compile(r"[()\[\]{}<>](?:[\s,]*[()\[\]{}<>])*")
_INPUT = re.compile(r"Input\s*:\s*([()\[\]{}<>](?:\s*[()\[\]{}<>])*)", re.I)
_LISTED = re.compile(r"\bList\s*:\s*([^\n]+)", re.I)
_ONLY_BRACKETS = re.compile(r"[\s()\[\]{}<>]+")
_ITEM = re.compile(r"(?:(?P<bullet>[-*+\u2022\u00b7])\s+|\(?(?P<number>\d{1,3})[.):]\s*)?(?P<word>\S+?)[.,;]?")
_AND = re.compile(AND, re.I)
_BRACKET_LINE = re.compile(r"\s*(?:[-*+\u2022\u00b7]\s+|\d{1,3}[.):]\s*)?([()\[\]{}<>])[,.;]?\s*")
_GLUE = re.compile(
    rf"{AND}|[-=]+>|[-=<>|&;:\u2192\u21d2]+|(?:then|finally|first|second|third|next|last)|\(?(?:\d{{1,3}}|[a-z])[.):]*",
    re.I,
)
"""What stands between the words of a list, or before one of them."""

_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf)\s*|[\[\]{}\"]|(?<!\w)'|'(?!\w)|\((?=\w{2,}\))|(?<=\w{2})\)")


def token_list(text: str) -> list[str]:
    """Split an answer into tokens: at white space and commas; every bracket is a token."""
    if _ONLY_BRACKETS.fullmatch(text):
        return [c for c in text if c in _BRACKETS]
    return [t for t in (w.strip(".,;\"'`").casefold() for w in re.split(r"[\s,]+", text)) if t]


def read_tokens(question: Question, text: str) -> Answer:
    """Read a sequence of tokens, in one line or one item a line.

    Of brackets it is the completion even if the reply repeats the input before it. Where the prompt lists the words to
    be put in order ("List: ..."), numbers of items and a last "and" that are none of them do not count.
    """
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    if not body:
        return Answer()
    body = strip_emphasis(body).replace("`", "")
    given = _INPUT.search(question.prompt) or _INPUT.search(body)
    capture = _captured(body.replace("$", "") if given else body).replace("\\{", "{").replace("\\}", "}")
    if given and _BRACKET_LINE.fullmatch(capture):
        capture = _brackets_a_line(body) or capture
    if given and (only := _brackets_in(capture)) is not None:
        prefix = token_list(given[1])
        if len(only) > len(prefix) and only[: len(prefix)] == prefix:
            only = only[len(prefix) :]
        return Answer(key=" ".join(only), text=" ".join(only), status="parsed")
    listed = _LISTED.search(question.prompt)
    words = frozenset(token_list(listed[1])) if listed else frozenset()
    tokens = _sequence(body, capture, words)
    if not tokens:
        return Answer()
    return Answer(key=" ".join(tokens), text=capture[:200], status="parsed")


def _brackets_a_line(body: str) -> str:
    """Return the brackets of the last lines, where each has one of its own."""
    found: list[str] = []
    for line in reversed([line for line in body.split("\n") if line.strip()]):
        if (match := _BRACKET_LINE.fullmatch(line)) is None:
            break
        found.append(match[1])
    return " ".join(reversed(found))


_LINES = 400
"""No sequence has more items: of a longer reply the end is looked at."""


def _sequence(body: str, capture: str, words: frozenset[str]) -> list[str]:
    """Return the tokens of a capture, or of the items that it is one of; else the last lines made of ``words``."""
    lines = [line.strip() for line in body.split("\n") if line.strip()][-_LINES:]
    place = next((i for i in range(len(lines) - 1, -1, -1) if lines[i].endswith(capture)), len(lines) - 1)
    found = _tokens(_items(lines, place)[0] or capture, words)
    if len(found) < 2 <= len(words) and (more := _one_a_line(lines, words)):
        return more
    if words and not words.issuperset(found):
        index = len(lines) - 1
        while index >= 0:
            items, first = _items(lines, index)
            other = _tokens(items or lines[index].rpartition(":")[2], words)
            if len(other) > 1 and words.issuperset(other):
                return other
            index = first - 1
    return found


def _one_a_line(lines: list[str], words: frozenset[str]) -> list[str]:
    """Return the listed words if the last lines that hold any have one each, and all of them."""
    found: list[str] = []
    for line in reversed(lines):
        held = [t for t in token_list(_WRAPPED.sub(" ", line)) if t in words]
        if len(held) == 1 and len(line.split()) <= 4:
            found.append(held[0])
        elif found:
            break
    return found[::-1] if sorted(found) == sorted(words) else []


def _items(lines: list[str], place: int) -> tuple[str, int]:
    """Return the items of the list that a line belongs to, with spaces between, and where it begins.

    The text is empty if the line is no item of a list.
    """
    kind = _kind(lines[place]) if lines else None
    if kind is None:
        return "", place
    first = last = place
    while first > 0 and _kind(lines[first - 1]) == kind:
        first -= 1
    while last + 1 < len(lines) and _kind(lines[last + 1]) == kind:
        last += 1
    found = [m["word"] for line in lines[first : last + 1] if (m := _ITEM.fullmatch(line))]
    return (" ".join(found) if len(found) > 1 else ""), first


def _kind(line: str) -> str | None:
    match = _ITEM.fullmatch(line)
    if match is None or line.endswith(":") or _ONLY_BRACKETS.fullmatch(line):
        return None
    return "number" if match["number"] else match["bullet"] or "bare"


def _tokens(text: str, words: frozenset[str]) -> list[str]:
    tokens = token_list(text)
    if words:
        if not words.issuperset(tokens):
            tokens = token_list(_WRAPPED.sub(" ", text).replace(";", " "))
        return [t for t in tokens if t in words or not _GLUE.fullmatch(t)]
    if len(tokens) > 2 and "," in text and _AND.fullmatch(tokens[-2]):
        del tokens[-2]
    return tokens


def _brackets_in(capture: str) -> list[str] | None:
    """Return the last run of brackets of a capture, or None if it ends in words."""
    runs = list(_BRACKET_RUN.finditer(capture))
    if not runs or capture[runs[-1].end() :].strip(" .`$*\"'"):
        return None
    return token_list(runs[-1][0])


def _captured(text: str) -> str:
    """Return the answer line: like other evidence, but brackets and signs at its ends are tokens, not wrappers."""
    for piece in evidence(text, text):
        if piece.kind == "line":
            line = last_line(text)
            _head, colon, tail = line.rpartition(":")
            return (tail if colon and tail.strip() else line).strip()
        return piece.text.strip()
    return last_line(text)
