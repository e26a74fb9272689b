"""Reading replies as lm-eval does, without its tasks."""

from __future__ import annotations

from moco_core import Question
from moco_toolkit_harness import read_reply


def test_a_written_answer_ends_before_the_first_stop_string() -> None:
    question = Question(id="q", prompt="?", meta={"until": ["\n\n", "Q:"]})
    assert read_reply(question, "one Q: two\n\nthree").text == "one "
    assert read_reply(question, "Q: none").key is None and read_reply(question, " x ").key == "x"


def test_a_choice_is_read_as_its_index_whether_shown_with_letters_or_listed_in_the_prompt() -> None:
    shown = Question(id="q", prompt="?", choices=("north", "south"), answer_kind="choice")
    assert read_reply(shown, "The answer is B.").key == "1" and read_reply(shown, "Hm.").key is None
    listed = Question(id="q", prompt="no or yes?", labels=("no", "yes"), answer_kind="label")
    assert read_reply(listed, "The answer is Yes.").key == "1" and read_reply(listed, "Who knows").key is None
