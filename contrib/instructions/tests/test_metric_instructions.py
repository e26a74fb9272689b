"""Instruction following: each check by hand, the four accuracies, and agreement with another checker reply by reply."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

from moco_core import Example, Question, Reply, Scored
from moco_metric_instructions import Instructions, Options, followed
from moco_metric_instructions.checks import CHECKS, loosened
from moco_metric_instructions.language import language_of, sentences, words
from moco_toolkit_authoring import metric_checks, score_of


def example(*instructions: tuple[str, dict[str, Any]], id: str = "q") -> Example:
    meta = {"instructions": [list(pair) for pair in instructions]}
    return Example(question=Question(id=id, prompt="Do it.", answer_kind="open"), meta=meta)


CASES = [
    ("keywords:existence", {"keywords": ["rain", "sun"]}, ["Sunny, then RAIN"], ["only sun"]),
    ("keywords:frequency", {"keyword": "a+", "relation": "at least", "frequency": 2}, ["aa b a"], ["aaa"]),
    ("keywords:frequency", {"keyword": "it", "relation": "less than", "frequency": 2}, ["it"], ["it did it"]),
    ("keywords:forbidden_words", {"forbidden_words": ["red", "blue"]}, ["bluer"], ["Red sky"]),
    ("keywords:letter_frequency", {"letter": "E", "let_relation": "at least", "let_frequency": 3}, ["hree E"], ["see"]),
    ("language:response_language", {"language": "de"}, ["Der Regen fällt auf das Dach des Hauses."], ["The rain falls down."]),
    ("language:response_language", {"language": "de"}, ["12 34"], []),  # nobody can tell: followed, as the authors decide
    (
        "length_constraints:number_sentences",
        {"relation": "less than", "num_sentences": 3},
        ["Mr. Bo left. I go."],
        ["It is. Is it? Go!"],
    ),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3}, ["one-two three"], ["one two"]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***a***b***"], ["a\n\nb", "a***\n***b"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        ["First.\n\n'then, rain", 'a\n\n"THEN'],
        ["a\n\nb", "a then", "a\n\nthen\n\nc"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b c]"], ["[a", "[a]\n[b\n]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye.\nP. S. more"], ["PS: more"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["p.p.s: more"], ["P.S. more"]),
    ("detectable_content:postscript", {"postscript_marker": "Note:"}, ["x\nNOTE: y"], ["x"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n- b", "  -a\n*b"], ["* a", "** a **\n* b"]),
    ("detectable_format:constrained_response", {}, ["Well. My answer is maybe."], ["My answer is yes"]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* *b*", "*a* **b**"], ["*a*", "** **"]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        ["Day 1 x\nDay 2 y"],
        ["Day x", "DAY 1 DAY 2"],
    ),
    ("detectable_format:json_format", {}, ['{"a": 1}', "```json\n[1]\n```", "3"], ["{a: 1}", "so: {}"]),
    ("detectable_format:title", {}, ["<<Rain>>\nfalls"], ["<< >>", "<Rain>"]),
    ("combination:two_responses", {}, ["a\n******\nb"], ["a******a", "a", "a************b"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi. "}, [" say hi. Hi!"], ["Hi! Say hi."]),
    ("startend:end_checker", {"end_phrase": "The end."}, ['He said: "the END."'], ["The end. No."]),
    ("startend:quotation", {}, ['"a"'], ['"', 'a"']),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, ["GO to NASA"], ["GO on"]),
    ("change_case:english_capital", {}, ["THE RAIN FALLS ON THE ROOF"], ["The rain", "DER REGEN FÄLLT AUF DAS DACH"]),
    ("change_case:english_lowercase", {}, ["the rain falls on the roof"], ["The rain falls"]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]  # fmt: skip


test_conformance = metric_checks(
    "instructions",
    settings=[{}, {"per": "instruction", "loose": True}],
    examples=[
        example(("punctuation:no_comma", {}), ("length_constraints:number_words", {"relation": "less than", "num_words": 4})),
        example(*((name, given) for name, given, *_ in CASES), id="all"),
    ],
)


def test_all_instructions_of_the_paper_have_a_check_and_every_check_a_case() -> None:
    assert len(CHECKS) == 25 and {name for name, *_ in CASES} == set(CHECKS)


@pytest.mark.parametrize(("name", "given", "right", "wrong"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_a_check_tells_replies_that_follow_from_those_that_do_not(
    name: str, given: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    assert [followed(reply, [(name, given)], loose=False) for reply in right] == [[True]] * len(right)
    assert [followed(reply, [(name, given)], loose=False) for reply in wrong] == [[False]] * len(wrong)


def test_loosely_a_line_at_either_end_and_stars_do_not_count() -> None:
    assert loosened("Sure:\n**a**\nb") == [
        "Sure:\n**a**\nb", "Sure:\na\nb", "**a**\nb", "a\nb", "Sure:\n**a**", "Sure:\na", "**a**", "a",
    ]  # fmt: skip
    reply, wanted = "Sure, here it is:\nRain falls", [("punctuation:no_comma", {})]
    assert (followed(reply, wanted, loose=False), followed(reply, wanted, loose=True)) == ([False], [True])
    assert followed(" \n", wanted, loose=True) == [False]  # an empty reply follows nothing


def test_the_four_accuracies() -> None:
    comma, quoted = ("punctuation:no_comma", {}), ("startend:quotation", {})
    rows = []
    for per, loose, values in (
        ("prompt", False, [0.0, 1.0]), ("prompt", True, [1.0, 1.0]),
        ("instruction", False, [0.5, 1.0]), ("instruction", True, [1.0, 1.0]),
    ):  # fmt: skip
        metric = Instructions(Options(per=per, loose=loose))  # type: ignore[arg-type]
        items = [(example(comma, quoted, id="1"), 'Sure:\n"Rain"'), (example(comma, id="2"), "Rain")]
        rows = [Scored(example=e, reply=Reply(text=r), score=score_of(metric, e, r)) for e, r in items]
        assert [r.score.value for r in rows] == values
        assert metric.extra_metrics(rows) == {
            "prompt strict": 0.5, "instruction strict": pytest.approx(2 / 3), "prompt loose": 1.0, "instruction loose": 1.0,
        }  # fmt: skip
        units = [u.score for u in metric.units(rows)]
        want = {"prompt": 0.5, "instruction": 2 / 3}[per] if not loose else 1.0  # instructions count, not prompts
        assert sum(units) / len(units) == pytest.approx(want)


def test_what_nobody_can_check_is_not_scored() -> None:
    metric = Instructions(Options())
    for item in (example(), example(("new:one", {})), example(("length_constraints:number_words", {"num_words": 3}))):
        assert score_of(metric, item, "some reply").value is None


def test_reasoning_is_no_part_of_the_reply_and_the_language_is_the_same_every_time() -> None:
    reply = "<think>Commas, commas.</think>No sign."
    assert score_of(Instructions(Options()), example(("punctuation:no_comma", {})), reply).value == 1.0
    assert len({language_of("No idea, amigo") for _ in range(20)}) == 1


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the checker of lm-evaluation-harness; sentences are cut by ours where nltk's model is absent."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("immutabledict")
    import nltk

    monkeypatch.setattr(nltk.data, "find", lambda *a, **k: None)  # it would fetch a model when imported
    monkeypatch.setattr(nltk, "download", lambda *a, **k: True)
    from lm_eval.tasks.ifeval import instructions_util, utils

    monkeypatch.setattr(instructions_util, "count_sentences", lambda text: len(sentences(text)))
    monkeypatch.setattr(instructions_util.nltk, "word_tokenize", words)
    import langdetect

    monkeypatch.setattr(langdetect.DetectorFactory, "seed", 0)
    monkeypatch.setattr(langdetect.detector_factory, "_factory", None)
    monkeypatch.setattr(langdetect, "detect", lru_cache(langdetect.detect))
    yield utils
    sys.modules.pop("lm_eval.tasks.ifeval.utils", None)


def test_another_checker_agrees_on_every_reply(other: Any) -> None:
    replies = [reply for _, _, right, wrong in CASES for reply in (*right, *wrong)]
    replies += [f"Sure, here it is:\n\n{r}\n" for r in replies[::3]] + [f"**{r}**\nBye." for r in replies[::4]] + ["", "  "]
    told = 0
    for (name, given, *_), reply in itertools.product(CASES, replies):
        item = other.InputExample(key=0, instruction_id_list=[name], prompt="p", kwargs=[given])
        strict = other.test_instruction_following_strict(item, reply).follow_instruction_list
        loose = other.test_instruction_following_loose(item, reply).follow_instruction_list
        ours = [followed(reply, [(name, given)], loose=how) for how in (False, True)]
        assert ours == [strict, loose], (name, given, reply)
        told += strict[0]
    assert told > 300
