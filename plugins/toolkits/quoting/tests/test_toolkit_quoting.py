"""What is quoted cannot end its quotation, and reads as it did otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moco_core import Message, Question
from moco_toolkit_quoting import escape, fence, transcript


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
