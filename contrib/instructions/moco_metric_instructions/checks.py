"""The twenty-five verifiable instructions of IFEval (arXiv 2311.07911, table 1), each a function of reply and arguments.

A check reads its arguments by the names that the dataset gives them and raises KeyError if one is missing. Where paper and
authors' code differ, the code decides: numbers are published with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from moco_metric_instructions.language import language_of, sentences, words

__all__ = ["CHECKS", "Arguments", "loosened"]

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]

CHECKS: dict[str, Check] = {}
"""By the name that the dataset has for an instruction."""


def _check(name: str) -> Callable[[Check], Check]:
    def keep(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return keep


def _holds(count: int, relation: str, number: int) -> bool:
    return count < number if relation == "less than" else count >= number


def _pattern(keyword: str) -> re.Pattern[str]:
    """Keywords are patterns, as in the authors' code; one that is no pattern is taken by the letter."""
    try:
        return re.compile(keyword, re.I)
    except re.error:
        return re.compile(re.escape(keyword), re.I)


# ---------------------------------------------------------------- keywords


@_check("keywords:existence")
def _existence(reply: str, given: Arguments) -> bool:
    return all(_pattern(keyword).search(reply) for keyword in given["keywords"])


@_check("keywords:frequency")
def _frequency(reply: str, given: Arguments) -> bool:
    found = _pattern(given["keyword"].strip()).findall(reply)
    return _holds(len(found), given["relation"], given["frequency"])


@_check("keywords:forbidden_words")
def _forbidden(reply: str, given: Arguments) -> bool:
    return not any(_pattern(rf"\b{word}\b").search(reply) for word in given["forbidden_words"])


@_check("keywords:letter_frequency")
def _letters(reply: str, given: Arguments) -> bool:
    return _holds(reply.lower().count(given["letter"].lower()), given["let_relation"], given["let_frequency"])


# ---------------------------------------------------------------- language and length


@_check("language:response_language")
def _language(reply: str, given: Arguments) -> bool:
    return language_of(reply) in (given["language"], None)


@_check("length_constraints:number_sentences")
def _sentences(reply: str, given: Arguments) -> bool:
    return _holds(len(sentences(reply)), given["relation"], given["num_sentences"])


@_check("length_constraints:number_words")
def _words(reply: str, given: Arguments) -> bool:
    return _holds(len(re.findall(r"\w+", reply)), given["relation"], given["num_words"])


@_check("length_constraints:number_paragraphs")
def _paragraphs(reply: str, given: Arguments) -> bool:
    """Paragraphs stand between lines of three stars; only the first and the last may be empty, and then do not count."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", reply)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == given["num_paragraphs"]


@_check("length_constraints:nth_paragraph_first_word")
def _first_word(reply: str, given: Arguments) -> bool:
    """Here paragraphs stand between empty lines; an empty one is passed over in the count, not in the numbering."""
    parts = [part.strip() for part in reply.split("\n\n")]
    count, place = sum(map(bool, parts)), given["nth_paragraph"]
    if place > count or not parts[place - 1]:
        return False
    word = re.split(r"[.,?!'\"]", parts[place - 1].split()[0].lstrip("'").lstrip('"'))[0]
    return bool(count == given["num_paragraphs"] and word.lower() == given["first_word"].lower())


# ---------------------------------------------------------------- content and format


@_check("detectable_content:number_placeholders")
def _placeholders(reply: str, given: Arguments) -> bool:
    return _holds(len(re.findall(r"\[.*?\]", reply)), "at least", given["num_placeholders"])


@_check("detectable_content:postscript")
def _postscript(reply: str, given: Arguments) -> bool:
    marker = given["postscript_marker"].strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(marker) or _pattern(marker.lower()).pattern, reply.lower()) is not None


@_check("detectable_format:number_bullet_lists")
def _bullets(reply: str, given: Arguments) -> bool:
    stars, dashes = re.findall(r"^\s*\*[^*].*$", reply, re.M), re.findall(r"^\s*-.*$", reply, re.M)
    return bool(len(stars) + len(dashes) == given["num_bullets"])


@_check("detectable_format:constrained_response")
def _constrained(reply: str, given: Arguments) -> bool:
    return any(f"My answer is {word}." in reply for word in ("yes", "no", "maybe"))


@_check("detectable_format:number_highlighted_sections")
def _highlights(reply: str, given: Arguments) -> bool:
    """A section counts between single stars, and between double ones once more, if anything stands there."""
    once = [found.strip("*") for found in re.findall(r"\*[^\n*]*\*", reply)]
    twice = [found.removeprefix("**").removesuffix("**") for found in re.findall(r"\*\*[^\n*]*\*\*", reply)]
    return _holds(sum(bool(text.strip()) for text in once + twice), "at least", given["num_highlights"])


@_check("detectable_format:multiple_sections")
def _sections(reply: str, given: Arguments) -> bool:
    splitter = _pattern(given["section_spliter"].strip()).pattern  # the dataset's spelling
    return _holds(len(re.split(rf"\s?{splitter}\s?\d+\s?", reply)) - 1, "at least", given["num_sections"])


@_check("detectable_format:json_format")
def _json(reply: str, given: Arguments) -> bool:
    body = re.sub(r"^```(?:json|Json|JSON)?", "", reply.strip()).removesuffix("```").strip()
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


@_check("detectable_format:title")
def _title(reply: str, given: Arguments) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", reply))


# ---------------------------------------------------------------- combination, start and end


@_check("combination:two_responses")
def _two(reply: str, given: Arguments) -> bool:
    parts = [part.strip() for part in reply.split("******")]
    told = [part for part in parts if part]
    return all(parts[1:-1]) and len(told) == 2 and told[0] != told[1]


@_check("combination:repeat_prompt")
def _repeat(reply: str, given: Arguments) -> bool:
    return reply.strip().lower().startswith(given["prompt_to_repeat"].strip().lower())


@_check("startend:end_checker")
def _end(reply: str, given: Arguments) -> bool:
    return reply.strip().strip('"').lower().endswith(given["end_phrase"].strip().lower())


@_check("startend:quotation")
def _quotation(reply: str, given: Arguments) -> bool:
    body = reply.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'


# ---------------------------------------------------------------- case and punctuation


@_check("change_case:capital_word_frequency")
def _capital_words(reply: str, given: Arguments) -> bool:
    count = sum(word.isupper() for word in words(reply))
    return _holds(count, given["capital_relation"], given["capital_frequency"])


@_check("change_case:english_capital")
def _capital(reply: str, given: Arguments) -> bool:
    return reply.isupper() and language_of(reply) in ("en", None)


@_check("change_case:english_lowercase")
def _lowercase(reply: str, given: Arguments) -> bool:
    return reply.islower() and language_of(reply) in ("en", None)


@_check("punctuation:no_comma")
def _no_comma(reply: str, given: Arguments) -> bool:
    return "," not in reply


def loosened(reply: str) -> list[str]:
    """Return the eight forms of a reply of which one must follow an instruction loosely (section 2.2 of the paper).

    With and without its first line, its last line, and stars; the reply itself is the first.
    """
    lines = reply.split("\n")
    cut = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [form for text in cut for form in (text, text.replace("*", ""))]
