"""Answers that are compared exactly: text, letters, labels, booleans, integers, decimals."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from moco_core.types import Answer, Question
from moco_toolkit_answers.choices import Options, choose
from moco_toolkit_answers.clean import plain_markdown, spaced, strip_outer, visible
from moco_toolkit_answers.conclusions import ends_of, predicate, said_of, tail_of
from moco_toolkit_answers.evidence import SHORT, Evidence, cut_sentence, evidence, last_line
from moco_toolkit_answers.latex import clean_latex, drop_assignment
from moco_toolkit_answers.numbers import find_numbers, localised, number_key, parse_number, signed, unscaled
from moco_toolkit_answers.phrases import AND, CROSSES, FALSE, JOIN, NOT, OR, TICKS, TRUE

__all__ = [
    "normalise_text",
    "read_boolean",
    "read_label",
    "read_letter",
    "read_number",
    "read_text",
    "text_key",
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
        key = text_key(_COPULA.sub("", piece.text) if piece.kind == "line" else piece.text)
        if key and any(c.isalnum() for c in key):
            return Answer(key=key, text=piece.text, status="parsed")
        if key and piece.kind in ("box", "tag", "declared"):
            return Answer(key=key, text=piece.text, status="parsed")
    return Answer()


_COPULA = re.compile(r"(?<=[\w\"')\]])(?:です|である|でした|입니다|이에요|예요)[.!]?\Z")
"""How a sentence of an answer alone ends in Japanese and Korean ("東京です")."""

# ---------------------------------------------------------------- letters

_ALPHABET = tuple(string.ascii_uppercase)


def read_letter(question: Question, text: str) -> Answer:
    """Read a single letter, with or without brackets ("(D) the blue book"); the article "a" is none."""
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    answer = choose(_letters(question.labels), body) if body else Answer()
    if answer.key is None:
        return answer
    letter = answer.text.partition(")")[0]
    return Answer(key=letter, text=letter, status="parsed")


@lru_cache(maxsize=512)
def _letters(labels: tuple[str, ...]) -> Options:
    names = tuple(label.strip("()[] ").upper() for label in labels) or _ALPHABET
    return Options(("",) * len(names), names)


# ---------------------------------------------------------------- labels and booleans

_LEAD = re.compile(
    r"(?:(?:it|that|this)(?:'s|\s+(?:is|would be))\s+|i\s+(?:would\s+|'d\s+)?(?:say|think|believe)\s+|i'd\s+say\s+|-\s+|"
    r"(?:most\s+)?(?:likely|probably|definitely|clearly|simply|certainly)\s+|"
    r"label(?:led)?\s+(?:as\s+)?|(?:a|an|the)\s+)+",
    re.I,
)
_AFTER_LABEL = re.compile(
    r"\s*(?:$|[.,;:!?)\]\"'(\-\u2014/]|(?:because|since|as|for|so|given|based|due|weil|denn|da|car|parce|puisque|porque|ya|pues|"
    r"perché|poiché|pois|потому|так\s+как)\b|(?:です|である|입니다|이다|है)(?!\w))",
    re.I,
)
_JOINED = re.compile(rf"\s*(?:,\s*)?{JOIN}\s*", re.I)


def _match_label(capture: str, labels: tuple[str, ...]) -> tuple[str | None, bool]:
    """Return (label, ambiguous) of a captured answer; labels are folded, longest first."""
    folded = " ".join(capture.casefold().split()).strip(" \"'*_()[]`")
    folded = folded.strip(_OUTER)
    for whole in (folded, folded.strip("<>")):
        if whole in labels:
            return whole, False
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
                return (None, True) if _lists(rest, label, labels) else (label, False)
    _head, colon, tail = folded.rpartition(":")
    for last in (tail if colon else "", tail_of(folded)):
        if last.strip(_OUTER) in labels:
            return last.strip(_OUTER), False
    return None, False


def _lists(rest: str, label: str, labels: tuple[str, ...]) -> bool:
    """Whether a label is the first of several between commas ("true, false, unknown")."""
    comma = _COMMA.match(rest)
    return comma is not None and any(
        rest.startswith(other, comma.end()) and _AFTER_LABEL.match(rest, comma.end() + len(other))
        for other in labels
        if _BOOLEANS.get(other, other) != _BOOLEANS.get(label, label)
    )


_COMMA = re.compile(r"\s*,\s*")


def _read_closed(body: str, labels: tuple[str, ...]) -> tuple[str | None, bool, str]:
    ambiguous = False
    body = spaced(body)
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
    if label is None and labels and not ambiguous:
        label = next((said for line in ends_of(plain_markdown(spaced(body))) if (said := said_of(line, labels))), None)
    if label is not None:
        return Answer(key=label, text=names[label], status="parsed")
    return Answer(status="ambiguous" if ambiguous else "unparsed", text=where[:SHORT])


_BOOLEANS = {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}
_SIGNS = {**dict.fromkeys((*"ty", *TICKS), True), **dict.fromkeys((*"fn", *CROSSES), False)}
_BOOLEAN_ORDER = tuple(sorted(_BOOLEANS, key=lambda n: (-len(n), n)))


def read_boolean(question: Question, text: str) -> Answer:
    """Read true/yes/correct or false/no/incorrect (in any language), as the first word of the answer only."""
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    word, ambiguous, where = _read_closed(body, _BOOLEAN_ORDER) if body else (None, False, "")
    truth = _BOOLEANS.get(word or "", _SIGNS.get(body.strip(_OUTER).casefold()))
    if truth is None and not ambiguous:
        truth = next((said for line in ends_of(plain_markdown(body)) if (said := predicate(line)) is not None), None)
    if truth is not None:
        value = str(truth).lower()
        return Answer(key=value, text=value, status="parsed")
    return Answer(status="ambiguous" if ambiguous else "unparsed", text=where[:SHORT])


# ---------------------------------------------------------------- numbers

_NEGATED_NUMBER = re.compile(rf"{NOT}\s*(?:(?:is|es|è|é|ist|est)\s+)?(?:\\?\$)?[\d.,]+\s*(?:but|,)?", re.I)


def number_in(capture: str, *, integer: bool, comma: bool, continental: bool = False) -> Fraction | None:
    """Return the number that a captured answer states; None if it states none or several of equal standing.

    ``comma`` reads "4,90" as a decimal (of a whole number it is none), ``continental`` "1.234" as a thousand and more.
    """
    capture = localised(signed(drop_assignment(capture)), comma=comma and not integer, continental=continental)
    whole = parse_number(capture)
    if whole is not None:
        return whole
    if "=" in capture:
        return number_in(capture.rpartition("=")[2].strip(), integer=integer, comma=comma, continental=continental)
    capture = _NEGATED_NUMBER.sub(" ", capture)
    if _LIST.match(capture) or _EITHER.match(capture):
        return None
    found = find_numbers(capture)
    return found[0] if found else None


_LIST = re.compile(r"\s*[(\[{]?\s*-?\d+(?:\.\d+)?\s*(?:,\s*-?\d+(?:\.\d+)?\s*)+[)\]}]?\s*$")


_EITHER = re.compile(rf"\W*-?\d[\d.,]*\s*(?:{OR}|{AND}(?!\s*\d+/\d))\W*-?\d[\d.,]*[^\w/]*\Z", re.I)
_EUROS = re.compile(
    r"(?:(?<=[\u20a0-\u20cf$£¥])|(?<=[\u20a0-\u20cf$£¥] ))\d{1,3}(?:\.\d{3})+(?![\d.,])"
    r"|(?<![\d.,])\d{1,3}(?:\.\d{3})+(?=\s?(?:[\u20a0-\u20cf]|euros?\b|EUR\b))",
    re.I,
)
"""Whole amounts of money: nobody writes three decimals of them."""


def _whole_amount(text: str) -> str:
    return _EUROS.sub(lambda m: m[0].replace(".", ""), text) if "." in text and _THREE_DECIMALS.search(text) else text


_THREE_DECIMALS = re.compile(r"\.\d{3}(?!\d)")


def read_number(question: Question, text: str) -> Answer:
    """Read a number: the strongest evidence that holds one, else the last number of the reply."""
    integer = question.answer_kind == "integer"
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    body = unscaled(spaced(body), question.prompt)
    if len(body) <= SHORT:
        whole_text = signed(body.rstrip("!"))
        if (alone := parse_number(_whole_amount(whole_text) if integer else whole_text, comma=not integer)) is not None:
            return _number(alone, body)
    for piece in evidence(body):
        # at the end of a line it is an exclamation, elsewhere a factorial
        capture = piece.text.rstrip("!") if piece.kind in ("hash", "line") else piece.text
        capture = _whole_amount(capture) if integer else capture
        if piece.kind == "line":
            whole = parse_number(localised(capture, comma=not integer))
            if whole is None:
                plain = plain_markdown(body)
                found = find_numbers(last_line(plain), comma=not integer) or find_numbers(
                    plain[-4000:], comma=not integer
                )
                if not found or _LIST.match(capture):
                    break
                whole = found[-1]
            return _number(whole, piece.text)
        value = number_in(capture, integer=integer, comma=True, continental=piece.comma)
        if value is not None:
            return _number(value, piece.text)
        if (piece.kind in ("box", "tag") and _LIST.match(piece.text)) or _EITHER.match(piece.text):
            return Answer(status="ambiguous", text=piece.text)
    return Answer()


def _number(value: Fraction, text: str) -> Answer:
    return Answer(key=number_key(value), text=text[:SHORT], status="parsed")
