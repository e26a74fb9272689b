"""Reads answers out of replies: one library for all metrics and for every method that votes.

``read(question, text)`` reads by the question's ``answer_kind``. Every function is pure, and none raises on any text.
"""

from __future__ import annotations

from collections.abc import Callable

from moco_core.types import Answer, Question
from moco_toolkit_answers.choices import canonical_choice, read_choice
from moco_toolkit_answers.clean import normalise_unicode, plain_markdown, strip_outer, strip_reasoning, visible
from moco_toolkit_answers.code import called_name, defines, extract_code, parses, read_code
from moco_toolkit_answers.evidence import Evidence, evidence
from moco_toolkit_answers.exact import (
    normalise_text,
    read_boolean,
    read_label,
    read_letter,
    read_number,
    read_text,
    text_key,
)
from moco_toolkit_answers.judging import fill, judge_of, mark_of
from moco_toolkit_answers.latex import clean_latex, has_unit, math_key, split_items, strip_units, text_only
from moco_toolkit_answers.maths import read_math
from moco_toolkit_answers.numbers import decimals_of, find_numbers, localised, number_key, parse_number, round_to
from moco_toolkit_answers.short import read_short, squad_tokens, token_f1
from moco_toolkit_answers.tokens import read_tokens, token_list
from moco_toolkit_answers.typed import answer_type, close, lists_match, parse_list, parse_value, read_typed

__all__ = [
    "READERS",
    "Evidence",
    "answer_type",
    "called_name",
    "canonical_choice",
    "clean_latex",
    "close",
    "decimals_of",
    "defines",
    "evidence",
    "extract_code",
    "fill",
    "find_numbers",
    "has_unit",
    "judge_of",
    "lists_match",
    "localised",
    "mark_of",
    "math_key",
    "normalise_text",
    "normalise_unicode",
    "number_key",
    "parse_list",
    "parse_number",
    "parse_value",
    "parses",
    "plain_markdown",
    "read",
    "read_boolean",
    "read_choice",
    "read_code",
    "read_label",
    "read_letter",
    "read_math",
    "read_number",
    "read_open",
    "read_short",
    "read_text",
    "read_tokens",
    "read_typed",
    "round_to",
    "split_items",
    "squad_tokens",
    "strip_outer",
    "strip_reasoning",
    "strip_units",
    "text_key",
    "text_only",
    "token_f1",
    "token_list",
    "visible",
]


def read_open(question: Question, text: str) -> Answer:
    """Read an open-ended reply: the whole of it, without reasoning."""
    body = strip_reasoning(text)
    if body is None:
        return Answer(status="cut")
    body = body.strip()
    return Answer(key=" ".join(body.split()), text=body, status="parsed") if body else Answer()


READERS: dict[str, Callable[[Question, str], Answer]] = {
    "choice": read_choice,
    "text": read_text,
    "letter": read_letter,
    "label": read_label,
    "boolean": read_boolean,
    "integer": read_number,
    "decimal": read_number,
    "math": read_math,
    "typed": read_typed,
    "tokens": read_tokens,
    "short": read_short,
    "open": read_open,
    "code": read_code,
}


def read(question: Question, text: str) -> Answer:
    """Read the answer out of a reply by the question's ``answer_kind`` (an unknown kind is read as text).

    Two replies give the same answer exactly if their keys are equal. Never raises on any text.
    """
    return READERS.get(question.answer_kind, read_text)(question, text)
