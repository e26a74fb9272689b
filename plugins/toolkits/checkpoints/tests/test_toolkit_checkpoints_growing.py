"""What is told of a reply that still grows is never taken back."""

from __future__ import annotations

import random

import pytest

from moco_toolkit_checkpoints.growing import answer_so_far, settled
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS, split


@pytest.mark.parametrize(
    ("text", "marks", "left"),
    [
        ("one", (), "one"),
        ("caf\ufffd", (), "caf"),
        ("so </th", ("</think>",), "so "),
        ("so </think>", ("</think>",), "so </think>"),
        ("a\n", ("\n\n", "\nQ:"), "a"),
        ("aa", ("aab", "ab"), ""),
        ("", ("x",), ""),
    ],
)
def test_an_end_that_may_become_something_else_is_not_settled(text: str, marks: tuple[str, ...], left: str) -> None:
    assert settled(text, marks) == left


@pytest.mark.parametrize("opened", ["", "</think>"])
@pytest.mark.parametrize("stops", [(), ("\n\n",), ("o!", "##")], ids=str)
def test_every_beginning_of_a_reply_tells_a_beginning_of_its_answer(stops: tuple[str, ...], opened: str) -> None:
    draw = random.Random(7)
    told_something = 0
    for _ in range(300):
        words = ["so", "o!", " #", "#", "\n", "caf\u00e9", " <", "b> ", "</", "<think"]
        reply = "".join(draw.choices(words, k=12))
        if opened or draw.random() < 0.5:
            reply = ("<think>" if not opened else "") + "hm </i> " + "</think>" * (draw.random() < 0.9) + " " + reply
        places = [at for stop in stops if (at := reply.find(stop)) >= 0]
        answer = split(reply[: min(places)] if places else reply, DEFAULT_TAGS, opened)[1]
        for end in range(len(reply)):
            told = answer_so_far(reply[:end], stops, DEFAULT_TAGS, opened)
            assert answer.startswith(told), (reply, end)
            told_something += bool(told)
    assert told_something > 1000
