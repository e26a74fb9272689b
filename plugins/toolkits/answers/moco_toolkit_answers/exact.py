"""Answers that are compared exactly: text, letters, labels, booleans, integers, decimals, token sequences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from moco_core.types import Answer, Question
from moco_toolkit_answers.clean import plain_markdown, strip_emphasis, strip_outer, visible
from moco_toolkit_answers.evidence import SHORT, Evidence, cut_sentence, evidence, last_line
from moco_toolkit_answers.latex import clean_latex, drop_assignment
from moco_toolkit_answers.numbers import find_numbers, number_key, parse_number

__all__ = [
    "normalise_text",
    "read_boolean",
    "read_label",
    "read_letter",
    "read_number",
    "read_text",
    "read_tokens",
    "token_list",
]

_ARTICLE = re.compile(r"(?:the|an|a)\s+(?=\S)")
_OUTER = " \t\n.,;:!?\"'`*_"


def normalise_text(text: str) -> str:
    """Lower case, one space between words, no outer punctuation, no leading article; inner punctuation stays."""
    text = " ".join(strip_outer(text).casefold().split())
    stripped = text.strip(_OUTER) or text
    without = _ARTICLE.sub("", stripped, count=1) if _ARTICLE.match(stripped) else stripped
    return without or stripped


def _pieces(text: str) -> Iterator[Evidence]:
    return evidence(text, plain_markdown(text))


def text_key(text: str) -> str:
    """Return the key of a text answer; plain numbers meet as rationals."""
    bare = strip_outer(text)
    if bare and (bare[0].isdigit() or bare[0] in "+-.$\\"):
        number = parse_number(clean_latex(bare) if "\\" in bare else bare, units=False)
        if number is not None:
            return number_key(number)
    return normalise_text(bare)


def read_text(question: Question, text: str) -> Answer:
    """Read a short text: the strongest evidence, else the last line if it is short."""
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    for piece in _pieces(body):
        if piece.kind == "line" and len(piece.text) > SHORT:
            return Answer(text=piece.text[:SHORT])
        key = text_key(piece.text)
        if key and any(c.isalnum() for c in key):
            return Answer(key=key, text=piece.text, status="parsed")
        if key and piece.kind in ("box", "tag", "declared"):
            return Answer(key=key, text=piece.text, status="parsed")
    return Answer()


# ---------------------------------------------------------------- letters

_LETTER = re.compile(r"[\s(\[{\"'*]*([A-Za-z])[)\]}\"'*.:,\s]*")
_LETTER_FIRST = re.compile(
    r"\s*(?:(?:option|choice|answer)\s*:?\s*)?(?:[(\[]([A-Za-z])[)\]]|([A-Z])(?:[).:,]|(?=\s|$)))(?!')", re.I
)


def read_letter(question: Question, text: str) -> Answer:
    """Read a single letter, with or without brackets ("(D) the blue book"); the article "a" is none."""
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    allowed = {label.strip("()[] ").upper() for label in question.labels}
    for piece in evidence(body, plain_markdown(body), initials=False):
        whole = _LETTER.fullmatch(piece.text)
        found = whole[1] if whole else None
        if found is None:
            first = _LETTER_FIRST.match(piece.text)
            if first and (first[1] or (first[2].isupper() and not _is_article(piece.text, first))):
                found = first[1] or first[2]
            others = set(re.findall(r"\(([A-Z])\)", piece.text))
            if found and re.match(r"\W*(?:or|and|/)\W*\(?[A-Z]\b", piece.text[first.end() :] if first else ""):
                return Answer(status="ambiguous", text=piece.text[:SHORT])
            if found is None and len(others) == 1:
                found = others.pop()
        if found:
            if allowed and found.upper() not in allowed:
                return Answer(status="invalid", text=found)
            return Answer(key=found.upper(), text=found.upper(), status="parsed")
    return Answer()


def _is_article(text: str, match: re.Match[str]) -> bool:
    return (
        match[2] in ("A", "I")
        and bool(re.match(r"\s+[a-z]", text[match.end() :]))
        and text[match.end() - 1] not in ").:,"
    )


# ---------------------------------------------------------------- labels and booleans

_LEAD = re.compile(
    r"(?:(?:it|that|this)\s+(?:is|would be)\s+|(?:most\s+)?(?:likely|probably|definitely|clearly|simply|certainly)\s+|"
    r"label(?:led)?\s+(?:as\s+)?|(?:a|an|the)\s+)+",
    re.I,
)
_AFTER_LABEL = re.compile(r"\s*(?:$|[.,;:!?)\]\"'(\-\u2014/]|(?:because|since|as|for|so|given|based|due)\b)", re.I)
_JOINED = re.compile(r"\s*(?:,\s*)?(?:/|\bor\b|\band\b)\s*", re.I)


def _match_label(capture: str, labels: tuple[str, ...]) -> tuple[str | None, bool]:
    """Return (label, ambiguous) of a captured answer; labels are folded, longest first."""
    folded = " ".join(capture.casefold().split()).strip(" \"'*_()[]`")
    folded = folded.strip(_OUTER)
    if folded in labels:
        return folded, False
    lead = _LEAD.match(folded)
    for start in {0, lead.end() if lead else 0}:
        for label in labels:
            if not folded.startswith(label, start):
                continue
            rest = folded[start + len(label) :]
            joined = _JOINED.match(rest)
            if joined and any(rest[joined.end() :].startswith(other) for other in labels if other != label):
                return None, True
            if _AFTER_LABEL.match(rest):
                return label, False
    _head, colon, tail = folded.rpartition(":")
    if colon and tail.strip(_OUTER) in labels:
        return tail.strip(_OUTER), False
    return None, False


def _read_closed(body: str, labels: tuple[str, ...]) -> tuple[str | None, bool, str]:
    ambiguous = False
    for piece in _pieces(body):
        label, both = _match_label(piece.text, labels)
        if label is not None:
            return label, False, piece.text
        if both:
            return None, True, piece.text
        ambiguous = ambiguous or both
    first = next((line for line in plain_markdown(body).split("\n") if line.strip()), "")
    label, both = _match_label(cut_sentence(strip_outer(first[:1000])), labels)
    return label, both, first


def read_label(question: Question, text: str) -> Answer:
    """Read one label of the closed set ``question.labels``: the whole answer, or its first words before a sign."""
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    names = {" ".join(label.casefold().split()): label for label in question.labels}
    labels = tuple(sorted(names, key=lambda n: (-len(n), n)))
    label, ambiguous, where = _read_closed(body, labels) if labels and body else (None, False, "")
    if label is not None:
        return Answer(key=label, text=names[label], status="parsed")
    return Answer(status="ambiguous" if ambiguous else "unparsed", text=where[:SHORT])


_BOOLEANS = {"true": True, "yes": True, "correct": True, "false": False, "no": False, "incorrect": False}
_BOOLEAN_ORDER = tuple(sorted(_BOOLEANS, key=lambda n: (-len(n), n)))


def read_boolean(question: Question, text: str) -> Answer:
    """Read true/yes/correct or false/no/incorrect, as the first word of the answer only."""
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    word, ambiguous, where = _read_closed(body, _BOOLEAN_ORDER) if body else (None, False, "")
    if word is not None:
        value = str(_BOOLEANS[word]).lower()
        return Answer(key=value, text=value, status="parsed")
    return Answer(status="ambiguous" if ambiguous else "unparsed", text=where[:SHORT])


# ---------------------------------------------------------------- numbers

_NEGATED_NUMBER = re.compile(r"\bnot\s+(?:\\?\$)?[\d.,]+\s*(?:but|,)?", re.I)


def number_in(capture: str, *, integer: bool, comma: bool) -> Fraction | None:
    """Return the number that a captured answer states; None if it states none or several of equal standing."""
    capture = drop_assignment(capture)
    whole = parse_number(capture, comma=comma and not integer)
    if whole is not None:
        return whole
    if "=" in capture:
        return number_in(capture.rpartition("=")[2].strip(), integer=integer, comma=comma)
    capture = _NEGATED_NUMBER.sub(" ", capture)
    if _LIST.match(capture):
        return None
    found = find_numbers(capture)
    return found[0] if found else None


_LIST = re.compile(r"\s*[(\[{]?\s*-?\d+(?:\.\d+)?\s*(?:,\s*-?\d+(?:\.\d+)?\s*)+[)\]}]?\s*$")


def read_number(question: Question, text: str) -> Answer:
    """Read a number: the strongest evidence that holds one, else the last number of the reply."""
    integer = question.answer_kind == "integer"
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    plain = plain_markdown(body)
    for piece in evidence(body, plain):
        if piece.kind == "line":
            whole = parse_number(piece.text, comma=not integer)
            if whole is None:
                found = find_numbers(last_line(plain)) or find_numbers(plain[-4000:])
                if not found or _LIST.match(piece.text):
                    break
                whole = found[-1]
            return _number(whole, piece.text)
        value = number_in(piece.text, integer=integer, comma=True)
        if value is not None:
            return _number(value, piece.text)
        if piece.kind in ("box", "tag") and _LIST.match(piece.text):
            return Answer(status="ambiguous", text=piece.text)
    return Answer()


def _number(value: Fraction, text: str) -> Answer:
    return Answer(key=number_key(value), text=text[:SHORT], status="parsed")


# ---------------------------------------------------------------- tokens

_BRACKETS = "()[]{}<>"
_BRACKET_RUN = re.compile(r"[()\[\]{}<>](?:\s*[()\[\]{}<>])*")
_INPUT = re.compile(r"Input\s*:\s*([()\[\]{}<>](?:\s*[()\[\]{}<>])*)", re.I)
_ONLY_BRACKETS = re.compile(r"[\s()\[\]{}<>]+")


def token_list(text: str) -> list[str]:
    """Split an answer into tokens: at white space and commas; every bracket is a token."""
    if _ONLY_BRACKETS.fullmatch(text):
        return [c for c in text if c in _BRACKETS]
    return [t for t in (w.strip(".,;\"'`").casefold() for w in re.split(r"[\s,]+", text)) if t]


def read_tokens(question: Question, text: str) -> Answer:
    """Read a sequence of tokens; of brackets, the completion even if the reply repeats the input before it."""
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    if not body:
        return Answer()
    given = _INPUT.search(question.prompt) or _INPUT.search(body)
    capture = _tokens_captured(body)
    if given and (only := _brackets_in(capture)) is not None:
        prefix = token_list(given[1])
        if len(only) > len(prefix) and only[: len(prefix)] == prefix:
            only = only[len(prefix) :]
        return Answer(key=" ".join(only), text=" ".join(only), status="parsed")
    tokens = token_list(capture)
    if not tokens:
        return Answer()
    return Answer(key=" ".join(tokens), text=capture[:200], status="parsed")


def _brackets_in(capture: str) -> list[str] | None:
    """Return the last run of brackets of a capture, or None if it ends in words."""
    runs = list(_BRACKET_RUN.finditer(capture))
    if not runs or capture[runs[-1].end() :].strip(" .`$*\"'"):
        return None
    return token_list(runs[-1][0])


def _tokens_captured(body: str) -> str:
    """Return the answer line: like other evidence, but brackets and signs at its ends are tokens, not wrappers."""
    text = strip_emphasis(body).replace("`", "")
    for piece in evidence(text, text):
        if piece.kind in ("box", "tag", "hash"):
            return piece.text.replace("\\{", "{").replace("\\}", "}")
        line = piece.text
        if piece.kind == "line":
            line = last_line(text)
            _head, colon, tail = line.rpartition(":")
            line = tail if colon and tail.strip() else line
        return line.strip()
    return last_line(text)
