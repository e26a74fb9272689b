"""Typed answers (TheoremQA, Chen et al. 2023, arXiv 2305.12524): integer, float, bool, option, lists of numbers."""

from __future__ import annotations

import re
from fractions import Fraction

from moco_core.types import Answer, Question
from moco_toolkit_answers.clean import plain_markdown, strip_outer, visible
from moco_toolkit_answers.evidence import SHORT, evidence, last_line
from moco_toolkit_answers.exact import number_in, read_boolean, read_letter, read_text
from moco_toolkit_answers.latex import clean_latex, drop_assignment
from moco_toolkit_answers.numbers import find_numbers, number_key, parse_number
from moco_toolkit_answers.phrases import AND

__all__ = ["TYPES", "answer_type", "close", "lists_match", "parse_list", "parse_value", "read_typed"]

TYPES = ("integer", "float", "bool", "option", "list of integer", "list of float")

_CONSTANTS = {"\\pi": "3.14159265358979323846", "\\pi ": "3.14159265358979323846", "e": "2.71828182845904523536"}
_SQRT = re.compile(r"\\sqrt\{([^{}]+)\}|sqrt\(([^()]+)\)")


def answer_type(question: Question) -> str:
    """Return the answer type of a question, as one of :data:`TYPES`; the empty string if it states none."""
    name = str(question.meta.get("answer_type", "")).strip().lower().replace("_", " ")
    aliases = {"int": "integer", "boolean": "bool", "number": "float", "letter": "option", "list": "list of float"}
    return aliases.get(name, name)


def parse_value(text: str) -> Fraction | None:
    """Return the number a text is, evaluating products with pi, e and square roots (no code is ever evaluated)."""
    cleaned = drop_assignment(clean_latex(text))
    number = parse_number(cleaned)
    if number is not None and not re.search(r"[\d.)]\s*(?:\\pi|\\sqrt|pi\b|sqrt)", cleaned):
        return number
    if len(cleaned) > 80:
        return None
    value = Fraction(1)
    rest = cleaned.replace("\\cdot", "*").replace("\\times", "*")
    numerator, slash, denominator = rest.partition("/")
    if slash and "/" not in denominator:
        top, bottom = _product(numerator), _product(denominator)
        return top / bottom if top is not None and bottom else None
    match = re.fullmatch(r"([+-]?)\\frac\{(.+)\}\{(.+)\}", rest)
    if match:
        top, bottom = _product(match[2]), _product(match[3])
        if top is None or not bottom:
            return None
        return -top / bottom if match[1] == "-" else top / bottom
    value = _product(rest)  # type: ignore[assignment]
    return value


def _product(text: str) -> Fraction | None:
    """Return the value of a product such as "2\\sqrt{3}" or "-3*\\pi"."""
    text = text.strip().strip("()")
    sign = 1
    if text[:1] in "+-" and text:
        sign = -1 if text[0] == "-" else 1
        text = text[1:]
    value, found = Fraction(sign), False
    while text.strip(" *"):
        text = text.lstrip(" *")
        root = _SQRT.match(text)
        number = re.match(r"\d+(?:\.\d+)?|\.\d+", text)
        if root:
            inner = parse_number(root[1] or root[2])
            if inner is None or inner < 0 or inner > 10**300:
                return None
            value *= Fraction(str(float(inner) ** 0.5))
            text = text[root.end() :]
        elif number:
            value *= Fraction(number[0])
            text = text[number.end() :]
        elif text.startswith(("\\pi", "pi", "π")):
            value *= Fraction(_CONSTANTS["\\pi"])
            text = text[3 if text[0] == "\\" else 2 if text[0] == "p" else 1 :]
        elif re.match(r"e(?![A-Za-z])", text):
            value *= Fraction(_CONSTANTS["e"])
            text = text[1:]
        else:
            return None
        found = True
    return value if found else None


_SEPARATOR = re.compile(rf"\s*(?:[,;]\s*{AND}|[,;]|{AND}|\b[ye]\b)\s*", re.I)


def parse_list(text: str) -> list[Fraction] | None:
    """Return the numbers of "[1, 2]", "(1,2)", "1, 2" or "1 and 2", in order; None if an element is no number."""
    text = clean_latex(text).strip()
    text = drop_assignment(text)
    text = re.sub(r"\\begin\{[a-z]*matrix\}|\\end\{[a-z]*matrix\}", " ", text).replace("\\\\", ",").replace("&", ",")
    text = text.strip().removesuffix(".")
    text = re.sub(r"^(?:\\\{|[\[({⟨]|\\langle)\s*|\s*(?:\\\}|[\])}⟩]|\\rangle)(?:\^\{?(?:T|\\top)\}?)?$", "", text)
    parts = [p.strip(" []()") for p in _SEPARATOR.split(text)]
    if len(parts) == 1 and re.fullmatch(r"[+-]?[\d.]+(?:\s+[+-]?[\d.]+)+", text):
        parts = text.split()
    values = [parse_value(drop_assignment(p)) for p in parts if p]
    if not values or len(values) != len(parts) or any(v is None for v in values):
        return None
    return [v for v in values if v is not None]


def close(prediction: Fraction, gold: Fraction, relative: float, absolute: float = 1e-9) -> bool:
    """Whether two numbers agree within a relative tolerance of the gold; a gold of zero is compared absolutely."""
    if gold == 0:
        return abs(prediction) <= Fraction(absolute)
    return abs(prediction - gold) <= Fraction(relative) * abs(gold)


def lists_match(prediction: list[Fraction], gold: list[Fraction], relative: float, ordered: bool) -> bool:
    """Whether two lists agree element by element, in order or after sorting."""
    if len(prediction) != len(gold):
        return False
    if not ordered:
        prediction, gold = sorted(prediction), sorted(gold)
    return all(close(p, g, relative) for p, g in zip(prediction, gold, strict=True))


_LIST_IN_TEXT = re.compile(r"(?:\\\{|[\[(])\s*[^\[\](){}]*?,[^\[\](){}]*?(?:\\\}|[\])])")


def read_typed(question: Question, text: str) -> Answer:
    """Read an answer of the type that ``question.meta["answer_type"]`` names."""
    kind = answer_type(question)
    if kind == "bool":
        return read_boolean(question, text)
    if kind == "option":
        return read_letter(question, text)
    if kind not in TYPES:
        return read_text(question, text)
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    plain = plain_markdown(body)
    for piece in evidence(body, plain):
        answer = _typed_capture(kind, piece.text)
        if answer is not None:
            return answer
        if piece.kind == "line":
            return _typed_line(kind, last_line(plain), plain)
    return Answer()


def _typed_capture(kind: str, capture: str) -> Answer | None:
    if kind.startswith("list"):
        values = parse_list(capture)
        if values is None:
            found = _LIST_IN_TEXT.findall(capture)
            values = parse_list(found[-1]) if found else None
        return None if values is None else _list_answer(values, capture)
    value = parse_value(capture)
    if value is None and "=" in capture:
        value = parse_value(capture.rpartition("=")[2])
    if value is None and not re.search(r"\\|\^", capture) and len(capture) > 0:
        value = number_in(capture, integer=kind == "integer", comma=False)
    if value is None:
        return None
    return Answer(key=number_key(value), text=capture[:SHORT], status="parsed")


def _typed_line(kind: str, line: str, plain: str) -> Answer:
    if kind.startswith("list"):
        found = _LIST_IN_TEXT.findall(plain)
        values = parse_list(found[-1]) if found else None
        return Answer(text=line[:SHORT]) if values is None else _list_answer(values, found[-1])
    numbers = find_numbers(line) or find_numbers(plain[-4000:])
    if not numbers:
        return Answer(text=strip_outer(line)[:SHORT])
    return Answer(key=number_key(numbers[-1]), text=number_key(numbers[-1]), status="parsed")


def _list_answer(values: list[Fraction], text: str) -> Answer:
    return Answer(key="[" + "; ".join(number_key(v) for v in values) + "]", text=text[:SHORT], status="parsed")
