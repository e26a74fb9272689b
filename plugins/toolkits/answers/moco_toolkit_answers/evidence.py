"""Where in a reply the answer stands: from the strongest evidence to the weakest, the last occurrence of each kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Literal

import attrs

from moco_toolkit_answers.clean import brace_pairs, plain_markdown, strip_outer

__all__ = ["Evidence", "EvidenceKind", "boxes", "cut_sentence", "evidence", "last_line"]

EvidenceKind = Literal["box", "tag", "hash", "declared", "line"]

SHORT = 64
"""A last line of at most this many characters is taken for the answer itself."""

_ROOM = 2000
"""No answer is longer: what goes beyond is not looked at."""


@attrs.frozen
class Evidence:
    """A piece of text that stands where an answer stands. ``text`` is one line, outer wrappers removed."""

    kind: EvidenceKind
    text: str


# ---------------------------------------------------------------- boxes

_BOX = re.compile(r"\\(?:boxed|fbox|framebox|box)\b\s*(?:\{|(?=[^\s{]))")
_BARE_BOX = re.compile(r"[^\s$,;]+")
_JOIN = re.compile(r"[\s$*,;]*(?:\\?\b(?:or|and)\b|\\text\s*\{\s*(?:or|and)\s*\}|,)[\s$*a-zA-Z=]*?", re.I)


def boxes(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, content) of every complete box, in order; an unbalanced one is left out."""
    out: list[tuple[int, int, str]] = []
    pairs = brace_pairs(text)
    inside = 0  # a box inside a box: the outer one is the answer
    for match in _BOX.finditer(text):
        if match.start() < inside:
            continue
        if text[match.end() - 1] == "{":
            end = pairs.get(match.end() - 1, -1)
            if end < 0:
                continue
            out.append((match.start(), end + 1, text[match.end() : end]))
            inside = end
        else:
            bare = _BARE_BOX.match(text, match.end())
            if bare:
                out.append((match.start(), bare.end(), bare[0].rstrip(".")))
    return out


def _box(text: str) -> tuple[str, bool]:
    """Return the last box (boxes joined by "or", "and" or a comma count as one) and whether there was any."""
    found = boxes(text)
    if not found:
        return "", False
    index = len(found) - 1
    content = found[index][2]
    while index > 0:
        between = text[found[index - 1][1] : found[index][0]]
        if len(between) > 24 or not _JOIN.fullmatch(between):
            break
        word = "or" if re.search(r"\bor\b", between) else ","
        content = f"{found[index - 1][2]} or {content}" if word == "or" else f"{found[index - 1][2]}, {content}"
        index -= 1
    return content, True


# ---------------------------------------------------------------- tags and JSON

_TAG_END = re.compile(r"<\s{0,4}/\s{0,4}(answer|final_answer|final)\s{0,4}>", re.I)
_TAG_START = re.compile(r"<\s{0,4}(answer|final_answer|final)\s{0,4}>", re.I)
_JSON = re.compile(r'"(?:final_)?answer"\s*:\s*("(?:[^"\\]|\\.)*"|[^\s,}{"][^,}{\n]*|\[[^\]\n]*\])', re.I)


def _tag(text: str) -> str | None:
    found: str | None = None
    if "</" in text or "< /" in text:
        ends = list(_TAG_END.finditer(text))
        if ends:
            end = ends[-1]
            starts = [m for m in _TAG_START.finditer(text, 0, end.start()) if m[1].lower() == end[1].lower()]
            if starts:
                found = text[starts[-1].end() : end.start()]
    if found is None and '"' in text and "{" in text:
        for match in _JSON.finditer(text):
            found = match[1].strip()
            if found.startswith('"'):
                try:
                    found = str(json.loads(found))
                except ValueError:
                    found = found[1:-1]
    return found


# ---------------------------------------------------------------- "#### x"

_HASH = re.compile(r"####[ \t]*([^\n#]+)")
_PLAIN_NUMBER = re.compile(r"[^\w\n]{0,3}[\d][\d.,/ ]*\D{0,12}")


def _hash(text: str) -> str | None:
    found = None
    end = len(text.rstrip())
    for match in _HASH.finditer(text):
        content = match[1].strip()
        last = match.end() >= end
        # "#### Step 2" is a heading: only a number, or what ends the reply, is an answer
        if content and (_PLAIN_NUMBER.fullmatch(content) or (last and len(content) <= SHORT)):
            found = content
    return found if found is None or not _DECLARED.match(found) else None


# ---------------------------------------------------------------- declared answers

_FILLER = (
    r"(?:\s*(?:therefore|thus|hence|then|so|likely|probably|clearly|definitely|simply|indeed|actually|indicated\s+as|"
    r"given\s+by|option|choice|that|either)\b\s*[:,]?)*"
)
_IS = r"(?:is|are|would\s+be|should\s+be|must\s+be|will\s+be|has\s+to\s+be|=|:)"
_DECLARED = re.compile(
    r"\b(?:answer|ans|(?:correct|right|best|final|true)\s+(?:option|choice|result|statement|solution|label)|"
    r"option|choice)s?\b['\")\]]*"
    r"(?:\s*\([^()\n]{0,40}\))?"  # "answer (in dollars):"
    r"(?:\s+(?:to|for|of|in|among|from|here)\b[^.:=\n?!]{0,80}?)?"
    rf"(?:\s*(?:{_IS}))\s*(?:(?<=[:=])|(?<=\w)(?=[\s:*(\[$\\]))\s*[:=]?{_FILLER}",
    re.I,
)
_SO_IT_IS = re.compile(
    r"\b(?:so|therefore|thus|hence)\b,?\s+(?:it|that|this)(?:\s+(?:is|must\s+be|has\s+to\s+be|should\s+be)|'s)\s+", re.I
)
_CHOSEN = re.compile(
    r"\bI(?:\s+(?:would|will|'ll)|'d|'ll)?\s+(?:choose|pick|select|go\s+with|opt\s+for)\b\s*:?\s*", re.I
)
_REVERSED = re.compile(
    r"(\$[^$\n]{1,400}\$|\\\([^\n]{1,400}?\\\)|(?<![^\s,;:])[^\s,;:]{1,64})\s+is\s+(?:(?:the|my|our)\s+)?(?:(?:final|correct|right)\s+)?answer\b",
    re.I,
)
_HEADING_ANSWER = re.compile(r"^[^\w\n]*(?:the\s+)?(?:final|correct|my)?\s*answer[^\w\n]*$\n", re.I | re.M)
_NEGATED = re.compile(r"\b(?:not|no|never|isn't|wasn't|nor|neither)\s+(?:\w+\s+){0,2}$", re.I)


def _declared(text: str) -> str | None:
    """Return what follows the last declaration, up to the end of its line (or the next line after a bare colon)."""
    lowered = text.lower()
    candidates: list[tuple[int, int]] = []  # (start of the declaration, start of what it declares)
    if "answer" in lowered or "option" in lowered or "choice" in lowered or "ans" in lowered or "correct " in lowered:
        candidates += [m.span() for m in _DECLARED.finditer(text)]
        candidates += [m.span() for m in _HEADING_ANSWER.finditer(text)]
    if " it" in lowered or " that" in lowered or " this" in lowered:
        candidates += [m.span() for m in _SO_IT_IS.finditer(text)]
    if "i" in lowered and ("choose" in lowered or "pick" in lowered or "select" in lowered or " with" in lowered):
        candidates += [m.span() for m in _CHOSEN.finditer(text)]
    for start, position in sorted(candidates, reverse=True):
        if _NEGATED.search(text, max(0, start - 24), start):
            continue
        rest = text[position:]
        line, _, more = rest.lstrip(" \t").partition("\n")
        if not line.strip(" \t*_:$\\[("):
            line = next((c for c in more.split("\n") if c.strip(" \t*_$\\[]")), "")
        line = line.strip()
        if line and line not in ("?", "."):
            return line
    if "answer" in lowered:
        found = None
        for match in _REVERSED.finditer(text):
            if match[1].lower() not in (
                "what",
                "which",
                "that",
                "this",
                "it",
                "here",
                "there",
                "not",
                "below",
                "above",
            ):
                found = match[1]
        return found
    return None


# ---------------------------------------------------------------- lines and sentences

_ABBREVIATED = re.compile(
    r"(?:\b[A-Za-z]|\b(?:Dr|Mr|Mrs|Ms|St|Sr|Jr|Prof|vs|etc|al|No|Nos|Inc|Ltd|Co|Corp|Mt|Ft|Gen|Sen|Rep|Gov|Capt|approx|"
    r"ca|cf|e\.g|i\.e|[ap]\.m|Ph\.D|U\.S|U\.K))\.$"
)
_SENTENCE_END = re.compile(r"[.!?]['\")\]]*(?=\s+[\"'(\[$\\*]*[A-Z0-9\\$(])")


def cut_sentence(text: str, *, initials: bool = True) -> str:
    """Return the first sentence; numbers ("3.5") and abbreviations do not end one.

    ``initials`` keeps "J. Smith" together; without it "C. Because" ends after the letter.
    """
    for match in _SENTENCE_END.finditer(text):
        head = text[: match.start() + 1]
        if head[-1] == ".":
            found = _ABBREVIATED.search(head)
            if found and (initials or len(found[0]) > 2):
                continue
        return text[: match.end()]
    return text


def last_line(text: str) -> str:
    """Return the last line with a word or a sign in it; fence lines do not count."""
    for line in reversed(text.split("\n")):
        stripped = line.strip()
        if stripped and not stripped.startswith(("```", "~~~")) and stripped not in ("$$", "\\]", "---", "***", "___"):
            return stripped
    return ""


def evidence(text: str, plain: str | None = None, *, initials: bool = True) -> Iterator[Evidence]:
    """Yield the pieces of evidence in a visible reply, the strongest first, at most one of each kind.

    ``plain`` is the text without Markdown, if the caller has it. The last line is always yielded last, whatever its
    length: what counts as short is the reader's decision.
    """
    had_box = False
    if "\\" in text and "box" in text:
        content, had_box = _box(text)
        if content.strip():
            yield Evidence("box", _line(content))
    tag = _tag(text)
    if tag is not None and tag.strip():
        yield Evidence("tag", _line(tag))
    if "####" in text:
        content_hash = _hash(text)
        if content_hash:
            yield Evidence("hash", _line(plain_markdown(content_hash)))
    if plain is None:
        plain = plain_markdown(text)
    if had_box:  # an empty box declares nothing
        for start, end, content in reversed(boxes(plain)):
            if not content.strip():
                plain = plain[:start] + plain[end:]
    declared = _declared(plain)
    if declared:
        sentence = strip_outer(cut_sentence(declared[:_ROOM], initials=initials))
        if sentence:
            yield Evidence("declared", sentence)
    line = strip_outer(last_line(plain)[-_ROOM:])
    if line:
        yield Evidence("line", line)


def _line(content: str) -> str:
    content = content.strip()[:_ROOM]
    if "\n" in content and "\\begin" not in content:
        content = content.split("\n", 1)[0] if not content.startswith("$$") else content.replace("\n", " ")
    return strip_outer(content)
