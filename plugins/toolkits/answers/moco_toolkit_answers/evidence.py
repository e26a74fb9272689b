"""Where in a reply the answer stands: from the strongest evidence to the weakest, the last occurrence of each kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Literal

import attrs

from moco_toolkit_answers.clean import brace_pairs, plain_markdown, strip_outer
from moco_toolkit_answers.phrases import AND, OR, THEREFORE, Language, spoken

__all__ = ["Evidence", "EvidenceKind", "boxes", "cut_sentence", "evidence", "last_line"]

EvidenceKind = Literal["box", "tag", "hash", "declared", "line"]

SHORT = 64
"""A last line of at most this many characters is taken for the answer itself."""

_ROOM = 2000
"""No answer is longer: what goes beyond is not looked at."""


@attrs.frozen
class Evidence:
    """A piece of text that stands where an answer stands. ``text`` is one line, outer wrappers removed.

    ``comma``: it is declared in a language that writes numbers as 1.234,5.
    """

    kind: EvidenceKind
    text: str
    comma: bool = False


# ---------------------------------------------------------------- boxes

_BOX = re.compile(r"\\(?:boxed|fbox|framebox|box)\b\s*(?:\{|(?=[^\s{]))")
_BARE_BOX = re.compile(r"[^\s$,;]+")
_WORD = rf"(?:{AND}|{OR}|\b[yeou]\b)"
_JOIN = re.compile(
    # nothing but the joining word may stand between, and the name of the next value
    rf"[\s$*]*(?:[,;]|,?[\s$*]*(?:{_WORD}|\\text\s*\{{\s*{_WORD}\s*\}})|\\q?quad)[\s$*]*(?:[A-Za-z](?:_\{{?\w+\}}?)?\s*=)?[\s$*]*",
    re.I,
)


def boxes(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, content) of every complete box, in order; an unbalanced one is left out."""
    out: list[tuple[int, int, str]] = []
    matches = list(_BOX.finditer(text))
    pairs = brace_pairs(text, matches[0].start()) if matches else {}
    inside = 0  # a box inside a box: the outer one is the answer
    for match in matches:
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
        if len(between) > 32 or not _JOIN.fullmatch(between):
            break
        word = "," if not (joined := _JOIN_WORD.search(between)) or _AND.fullmatch(joined[0]) else "or"
        content = f"{found[index - 1][2]} or {content}" if word == "or" else f"{found[index - 1][2]}, {content}"
        index -= 1
    return content, True


_JOIN_WORD = re.compile(_WORD, re.I)
_AND = re.compile(rf"{AND}|[ye]", re.I)


# ---------------------------------------------------------------- tags and JSON

_TAG_END = re.compile(r"<\s{0,4}/\s{0,4}(answer|final_answer|final)\s{0,4}>", re.I)
_TAG_START = re.compile(r"<\s{0,4}(answer|final_answer|final)\s{0,4}>", re.I)
_JSON = re.compile(r'"(?:final_)?answer"\s*:\s*("(?:[^"\\]|\\.)*"|\[[^\]\n]*\]|[^\s,}{"][^,}{\n]*)', re.I)


def _tag(text: str) -> str | None:
    found: str | None = None
    if "<" in text and ("</" in text or "< /" in text):
        ends = list(_TAG_END.finditer(text))
        if ends:
            end = ends[-1]
            starts = [m for m in _TAG_START.finditer(text, 0, end.start()) if m[1].lower() == end[1].lower()]
            if starts:
                found = text[starts[-1].end() : end.start()]
    elif "<" in text and (starts := list(_TAG_START.finditer(text))):
        found = text[starts[-1].end() :]  # the closing one was a stop string
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
_IS = r"(?:is|are|(?=(?:isn't|wasn't)\b)|would\s+be|should\s+be|must\s+be|will\s+be|has\s+to\s+be|=|:)"
_DECLARED = re.compile(
    r"\b(?:answer|ans|(?:correct|right|best|final|true)\s+(?:option|choice|result|statement|solution|label)|"
    r"option|choice)s?\b['\")\]]*"
    r"(?:\s*\([^()\n]{0,40}\))?"  # "answer (in dollars):"
    r"(?:\s+(?:to|for|of|in|among|from|here)\b[^.:=\n?!]{0,80}?)?"
    r"(?:\s*,\s*(?:therefore|thus|hence|then|so)\s*,)?"
    rf"(?:\s*(?:{_IS}))\s*(?:(?<=[:=])|(?<=\w)(?=[\s:*(\[$\\])|(?<=\s)(?=(?:isn't|wasn't)))\s*[:=]?{_FILLER}",
    re.I,
)
_ALONE = r"[\"'(\[*$]{0,4}(?:[A-HJ-Z]|-?\$?\d[\d.,]*%?|(?<=[(\[])\w)[)\"'\]*$]{0,4}\s*[.!]?"
"""A letter or a number, and nothing else in its sentence."""

_LAST = re.compile(rf"(?<=[\s:,-])(?:{_ALONE})\s*\Z")
_ARROW = re.compile(rf"\banswer(?:\s*(?:->|=>|→|-(?=\s))\s*|'s\s+)(?={_ALONE}\s*(?:\n|$))", re.I)
_SO_IT_IS = re.compile(
    r"\b(?:so|therefore|thus|hence)\b,?\s+(?:it|that|this)(?:\s+(?:is|must\s+be|has\s+to\s+be|should\s+be)|'s)\s+", re.I
)
_SO = re.compile(rf"{THEREFORE}\s*[,:]?\s*\Z", re.I)
_CHOSEN = re.compile(
    r"\bI(?:\s+(?:would|will|'ll)|'d|'ll)?\s+(?:choose|pick|select|go\s+with|opt\s+for)\b\s*:?\s*", re.I
)
_CORRECTED = re.compile(
    r"\b(?:correction|(?:no\s+)?wait|actually|sorry|scratch\s+that|on\s+second\s+thoughts?|no(?=[,.:!]))\b[\s,.:!-]*(?:\b(?:no|wait|actually|sorry)\b[\s,.:!-]*)*"
    r"(?:(?:it|that|this)(?:'s|\s+is|\s+should\s+be|\s+must\s+be)\s+|(?:the\s+)?(?:correct\s+)?answer\s+(?:is|should\s+be)\s+|"
    r"i\s+meant?\s+|make\s+(?:that|it)\s+|should\s+be\s+)*\Z",
    re.I,
)
_REVERSED = re.compile(
    r"(\$[^$\n]{1,400}\$|\\\([^\n]{1,400}?\\\)|(?<![^\s,;:])[^\s,;:]{1,64})\s+is\s+(?:(?:the|my|our)\s+)?(?:(?:final|correct|right)\s+)?answer\b",
    re.I,
)
_NO_ANSWER = frozenset(["what", "which", "that", "this", "it", "here", "there", "not", "below", "above"])
_HEADING_ANSWER = re.compile(r"^[^\w\n]*(?:the\s+)?(?:final|correct|my)?\s*answer[^\w\n]*$\n", re.I | re.M)
_NEGATED = re.compile(r"\b(?:not|no|never|isn't|wasn't|nor|neither)\s+(?:\w+\s+){0,2}$", re.I)
_REJECTED = frozenset({
    "incorrect", "incorrecta", "incorrecto", "wrong", "false", "worst", "falsche", "falschen",
    "falscher", "falsches", "inkorrekte", "inkorrekten", "inkorrekter", "mauvais", "mauvaise", "fausse",
    "falsa", "falso", "sbagliata", "sbagliato", "errata", "errato", "errada", "errado",
    "गलत",
})  # fmt: skip
_REJECTED_SIGNS = re.compile(
    r".*(?:[不非]|错误的?|錯誤的?|間違った|誤った|誤っている|틀린|잘못된)|(?:неверн|неправильн|ошибочн)\w+"
)


def _denied(text: str, start: int) -> bool:
    """Whether what is declared from ``start`` on is said not to be the answer."""
    before = text[max(0, start - 24) : start]
    words = before.rsplit(None, 1)
    if not words:
        return False
    if _NEGATED.search(before):
        return True
    last = words[-1].lower()
    return last in _REJECTED or (not last.isascii() and _REJECTED_SIGNS.fullmatch(last) is not None)


_BLANK = " \t*_:$\\[("


_NOUNS = ("ans", "option", "choice", "correct ", "right ", "best ", "final ", "true ")
_CHOICES = ("i choose", "i pick", "i select", "i go ", "i opt ", "i would ", "i will ", "i'll ", "i'd ")


def _matches(pattern: re.Pattern[str], text: str, lowered: str, words: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield where a pattern matches that begins with one of ``words``: finding these first is much faster."""
    if len(lowered) != len(text):  # lower case may be longer
        yield from (m.span() for m in pattern.finditer(text))
        return
    for word in words:
        start = lowered.find(word)
        while start >= 0:
            if match := pattern.match(text, start):
                yield match.span()
            start = lowered.find(word, start + len(word))


_Candidate = tuple[int, int, Language | None]
"""Where a declaration begins, where what it declares does, and its language (None: English)."""


def _candidates(text: str, lowered: str, languages: list[Language]) -> list[_Candidate]:
    """Return all declarations of a text; ``languages`` gets those it is written in."""
    english = [*_matches(_DECLARED, text, lowered, _NOUNS)]
    if "i " in lowered or "i'" in lowered:
        english += _matches(_CHOSEN, text, lowered, _CHOICES)
    if "answer" in lowered:
        if "\n" in text:
            english += [m.span() for m in _HEADING_ANSWER.finditer(text)]
        if "->" in text or "=>" in text or "→" in text or "answer -" in lowered or "answer's" in lowered:
            english += [m.span() for m in _ARROW.finditer(text)]
    if " it" in lowered or " that" in lowered or " this" in lowered:
        english += _matches(_SO_IT_IS, text, lowered, ("so", "therefore", "thus", "hence"))
    found: list[_Candidate] = [(start, end, None) for start, end in english]
    # the usual reply is English: what costs time is looked for where it has not said anything
    if not (found and text.isascii()):
        languages += spoken(lowered)
    found += [(start, end, language) for language in languages for start, end in language.declarations(text)]
    # a mere conclusion or correction counts at the very end only: lists of steps are full of them
    last = _LAST.search(text, max(0, len(text) - _TAIL))
    if last:
        before = text[max(0, last.start() - 2 * _TAIL) : last.start()]
        if mark := _CORRECTED.search(before) or _SO.search(before):
            found.append((last.start() - len(mark[0]), last.start(), languages[0] if languages else None))
    return found


def _declared(text: str, initials: bool) -> tuple[str, bool]:
    """Return the sentence that the last declaration declares, and whether its language writes decimal commas.

    A declaration reaches to the end of its line, or is the next line after a bare colon. One that is asked ("is the
    answer A? No.") declares nothing.
    """
    lowered = text.lower()
    languages: list[Language] = []
    for start, position, language in sorted(_candidates(text, lowered, languages), key=lambda c: c[:2], reverse=True):
        if _denied(text, start):
            continue
        line, _, more = text[position : position + _ROOM].lstrip(" \t").partition("\n")
        if not line.strip(_BLANK):
            line = next((c for c in more.split("\n") if c.strip(" \t*_$\\[]")), "")
        line = line.strip()
        sentence = cut_sentence(line, initials=initials)
        if sentence.endswith("?") and len(sentence) < len(line):
            continue
        sentence = strip_outer(sentence.rstrip("!") if sentence.endswith("!") else sentence)
        if language is not None:
            sentence = strip_outer(language.bare(sentence))
        if sentence and sentence not in ("?", "."):
            return sentence, language is not None and language.comma
    if "answer" in lowered:
        reversed_ = [m[1] for m in _REVERSED.finditer(text) if m[1].lower() not in _NO_ANSWER]
        if reversed_:
            return strip_outer(reversed_[-1]), False
    for spoken_ in languages:
        if (said := spoken_.reversed(text)) is not None:
            return strip_outer(said), spoken_.comma
    return "", False


_TAIL = 40
"""So much of the end of a text may be a bare letter or number with what stands around it."""


# ---------------------------------------------------------------- lines and sentences

_ABBREVIATED = re.compile(
    r"(?:\b[A-Za-z]|\b(?:Dr|Mr|Mrs|Ms|St|Sr|Jr|Prof|vs|etc|al|No|Nos|Inc|Ltd|Co|Corp|Mt|Ft|Gen|Sen|Rep|Gov|Capt|approx|"
    r"ca|cf|e\.g|i\.e|[ap]\.m|Ph\.D|U\.S|U\.K))\.$"
)
_SENTENCE_END = re.compile(
    r"[.!?]['\")\]]*(?=\s+[\"'(\[$\\*]*"
    # a capital, a digit, a formula, or a letter of a script without capitals
    r"[A-Z0-9\\$(\u00c0-\u00d6\u00d8-\u00de\u0391-\u03a9\u0410-\u042f\u0401\u0590-\u0dff\u0e00-\u0fff\u3040-\u9fff\uac00-\ud7af])"
)


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
    end = len(text)
    while end >= 0:
        start = text.rfind("\n", 0, end) + 1
        stripped = text[start:end].strip()
        if stripped and not stripped.startswith(("```", "~~~")) and stripped not in ("$$", "\\]", "---", "***", "___"):
            return stripped
        end = start - 1
    return ""


def evidence(text: str, plain: str | None = None, *, initials: bool = True) -> Iterator[Evidence]:
    """Yield the pieces of evidence in a visible reply, the strongest first, at most one of each kind.

    ``plain`` is the text without Markdown, if the caller has it. The last line is always yielded last, whatever its
    length: what counts as short is the reader's decision.
    """
    had_box, written = False, text
    if "{" in text and "\\" not in text and "boxed{" in text:
        text = text.replace("boxed{", "\\boxed{")
    if "\\" in text and "box" in text:
        content, had_box = _box(text)
        if content.strip():
            yield Evidence("box", _line(content))
    tag = _tag(text)
    if tag is not None and tag.strip():
        yield Evidence("tag", _line(tag))
    if "#" in text and "####" in text:
        content_hash = _hash(text)
        if content_hash:
            yield Evidence("hash", _line(plain_markdown(content_hash)))
    if plain is None:
        plain = plain_markdown(written)
    if had_box:  # an empty box declares nothing
        for start, end, content in reversed(boxes(plain)):
            if not content.strip():
                plain = plain[:start] + plain[end:]
    sentence, comma = _declared(plain, initials)
    if sentence:
        yield Evidence("declared", sentence, comma)
    line = strip_outer(last_line(plain)[-_ROOM:])
    if line:
        yield Evidence("line", line)


def _line(content: str) -> str:
    content = content.strip()[:_ROOM]
    if "\n" in content and "\\begin" not in content:
        content = content.split("\n", 1)[0] if not content.startswith("$$") else content.replace("\n", " ")
    return strip_outer(content)
