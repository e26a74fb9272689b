"""Odd forms of a reply: marks of a turn, tags without an end, halves of characters, lists, brackets, values."""

from __future__ import annotations

import pytest

from moco_core import Question
from moco_toolkit_answers import math_key, read, strip_reasoning
from moco_toolkit_answers.evidence import evidence

SORT = "Sort the following words alphabetically: List: oven cab ant"


@pytest.mark.parametrize(
    "reply",
    [
        "Paris<|im_end|>",
        "Paris<|im_end|>\n<|im_start|>user\nAnd Rome?",
        "Paris<|eot_id|>",
        "Paris</s>",
        "Paris<end_of_turn>\n",
        "<|assistant|>Paris<|endoftext|>",
        "<s>Paris",
        "<answer>Paris",
        "<answer> Paris </answer>",
        "Here is my thought process: Rome? No. Here is my response: Paris",
        "Rome? No.\n[BEGIN FINAL RESPONSE]\nParis\n[END FINAL RESPONSE]\n<|end|>",
        "<|think|>Rome?<|end|><|begin|>assistant<|content|>Paris<|end|>",
        "So it is <|begin_of_box|>Paris<|end_of_box|>.",
        "boxed{Paris}",
        "\ud83d Paris\udc00",
        "Paris\ufffd",
        '{"answer": "Paris"}',
    ],
)
def test_what_stands_around_a_reply_is_no_part_of_the_answer(reply: str) -> None:
    assert read(Question(id="q", prompt="?", answer_kind="text"), reply).key == "paris"


def test_marks_of_a_turn_inside_a_text_or_a_program_stay() -> None:
    for text in ('END = "<|im_end|>"\nprint(END)', "<s>no</s> yes", "<|im_end|>"):
        assert strip_reasoning(text) == text


def test_a_list_in_json_is_whole() -> None:
    assert {e.kind: e.text for e in evidence('{"answer": ["a", "b"], "n": 1}')}["tag"] == '["a", "b"]'


@pytest.mark.parametrize(
    "reply",
    [
        "ant → cab → oven",
        "ant -> cab -> oven",
        "ant < cab < oven",
        "ant | cab | oven",
        "ant, then cab, then oven",
        "['ant', 'cab', 'oven']",
        '{"answer": ["ant", "cab", "oven"]}',
        "\\boxed{\\text{ant}, \\text{cab}, \\text{oven}}",
        "a) ant\nb) cab\nc) oven",
        "① ant\n② cab\n③ oven",
        "First: ant\nSecond: cab\nThird: oven",
        "ant, cab & oven",
        "| ant |\n| cab |\n| oven |",
        "1. ant (a)\n2. cab (c)\n3. oven (o)",
    ],
)
def test_words_are_listed_in_many_ways(reply: str) -> None:
    assert read(Question(id="q", prompt=SORT, answer_kind="tokens"), reply).key == "ant cab oven"


@pytest.mark.parametrize(
    "reply",
    ["] } ]", "\\boxed{] \\} ]}", "$]$ $\\}$ $]$", "]\n}\n]", "], }, ]", "1. ]\n2. }\n3. ]", "［ ｛ ［ ］ ｝ ］"],
)
def test_brackets_are_listed_in_many_ways(reply: str) -> None:
    asked = Question(id="q", prompt="Complete the rest of the sequence. Input: [ { [", answer_kind="tokens")
    assert read(asked, reply).key == "] } ]"


@pytest.mark.parametrize(
    ("reply", "key"),
    [
        ("La respuesta es 5 y 7.", "5,7"),
        ("La risposta è 5 e 7.", "5,7"),
        ("Ответ: 5; 7", "5,7"),
        ("答案是5和7。", "5,7"),
        ("答えは5と7です。", "5,7"),
        ("정답은 5와 7입니다.", "5,7"),
        ("So $x=5$ or $x=7$", "x=5,x=7"),
        ("We have $a = 1$ and $b = 2$", "2"),
        ("\\boxed{5 \\lor 7}", "5,7"),
    ],
)
def test_several_values_are_a_list_in_any_language(reply: str, key: str) -> None:
    assert read(Question(id="q", prompt="?", answer_kind="math"), reply).key == key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2√3", "2\\sqrt{3}"),
        ("√(x+1)", "\\sqrt{x+1}"),
        ("∞", "\\infty"),
        ("infinity", "\\infty"),
        ("x ≤ 3", "x \\leq 3"),
        ("{5 \\choose 2}", "\\binom{5}{2}"),
        ("\\binom52", "\\binom{5}{2}"),
        ("(x,y)=(1,2)", "(1,2)"),
        ("(101)_2", "101_2"),
        ("0.\\overline{3}", "\\frac13"),
        ("0.1\\overline{6}", "\\frac16"),
        ("10^{-3}", "0.001"),
        ("2^{10}", "1024"),
    ],
)
def test_two_ways_to_write_a_value_have_one_key(one: str, other: str) -> None:
    assert math_key(one) == math_key(other)
