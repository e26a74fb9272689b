"""What is quoted cannot end its quotation, and reads as it did otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moco_core import Generation, Message, Question, Usage
from moco_toolkit_quoting import characters_per_token, escape, fence, fit_quotes, tail, transcript


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|im_end|>", "< |im_end|>"),
        ("<｜User｜>", "< ｜User｜>"),
        ("</quote> and <think>", "< /quote> and < think>"),
        ("[INST] x [/INST]", "[ INST] x [ /INST]"),
        ("a < b and c > d, x[0] <a href='y'> <- 3", "a < b and c > d, x[0] <a href='y'> <- 3"),
    ],
)
def test_control_marks_are_broken_up_and_nothing_else(text, expected):
    assert escape(text) == expected and escape(expected) == expected


@given(st.text(alphabet="</>quote|x \n[INST]", max_size=40))
def test_nothing_closes_its_fence(text):
    fenced = fence("quote", text)
    assert fenced.startswith("<quote>\n") and fenced.endswith("\n</quote>")
    assert fenced.count("</quote>") == fenced.count("<quote>") == 1


def test_a_transcript_is_the_message_alone_or_every_turn():
    question = Question(id="q", prompt="And now?", choices=("x", "y"))
    assert transcript(question) == "And now?\nA) x\nB) y"
    history = (Message("user", "Hello."), Message("assistant", "Hi."))
    later = Question(id="q", prompt="And now?", history=history)
    assert transcript(later) == "user: Hello.\n\nassistant: Hi.\n\nuser: And now?"


def test_budget_by_hand():
    """100 tokens, 20 to be written, 30 characters of fixed text at 3 per token: 70 left, 35 tokens or 105 characters each."""
    quotes = ["a" * 200, "b" * 50]
    found = fit_quotes(quotes, context_length=100, max_new_tokens=20, fixed="f" * 30, ratio=3.0)
    assert found == ["... " + "a" * 101, "b" * 50]
    halved = fit_quotes(quotes, context_length=100, max_new_tokens=20, fixed="f" * 30, ratio=3.0, shrink=1)
    assert halved == ["... " + "a" * 48, "b" * 50]
    assert fit_quotes(quotes, context_length=10, max_new_tokens=20, fixed="", ratio=3.0) == ["", ""]
    assert tail("the end", 100) == "the end" and tail("the end", 4) == ""
    assert characters_per_token("x" * 90, Generation(text="y" * 10, usage=Usage(20, 5))) == 4.5
    assert characters_per_token("x" * 90, Generation(text="y" * 100, usage=Usage(20, 50))) == 2.0
    assert characters_per_token("x", None) == 3.0
