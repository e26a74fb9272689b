"""What fits into a prompt: the board gives way, the question never does."""

from __future__ import annotations

import re

import attrs
from bbmas_agents import QUESTION, agent, discuss

from moco_core import Message, PromptTooLong, Sampling
from moco_method_bbmas.board import Board
from moco_toolkit_authoring import ScriptedPool


def test_the_oldest_entries_are_left_out_first():
    board = Board()
    assert board.write(0) == "The blackboard is empty."
    for i in range(1, 4):
        board.post(f"agent {i}", "m", i, "step", f"entry number {i}")
    whole = board.write()
    assert board.write(len(whole)) == whole and whole.count("<entry>") == 3
    two = board.write(len(whole) - 5)
    assert two.startswith("(1 earlier entry is left out)\n#2 agent 2 (step):") and len(two) < len(whole)
    head = "(3 earlier entries are left out)\n"
    newest = board.write(len(head + "#3 agent 3 (step):\n<entry>\n\n</entry>") + 8)
    assert newest.endswith("<entry>\n... er 3\n</entry>") and "(2 earlier" in newest
    assert board.write(len(newest) - 1) == board.write(0) == "(3 earlier entries are left out)"


def test_a_long_board_never_cuts_the_question():
    pool = ScriptedPool(
        dict.fromkeys("ab", agent("step", "word " * 100)), fields={name: {"context_length": 700} for name in "ab"}
    )
    sampling = Sampling(temperature=0.0, max_new_tokens=100)
    discuss(pool, max_rounds=8, sampling=sampling)
    for call in pool.history:
        assert call.prompt.startswith(QUESTION.text()) and len(call.prompt.split()) <= 600
    assert any("left out)" in call.prompt for call in pool.history)
    pool = ScriptedPool(dict.fromkeys("ab", agent("step", "word " * 30)))
    discuss(pool, max_rounds=6, max_board_tokens=40)
    assert any("left out)" in call.prompt for call in pool.history)


def test_earlier_turns_and_the_system_prompt_stand_before_every_prompt():
    question = attrs.evolve(
        QUESTION, system="Be brief.", history=(Message("user", "Hi."), Message("assistant", "Hello."))
    )
    pool = ScriptedPool(dict.fromkeys("ab", agent("step", "x")))
    discuss(pool, question, max_rounds=1)
    for call in pool.history:
        assert [m.content for m in call.messages[:-1]] == ["Be brief.", "Hi.", "Hello."]


def test_a_context_without_room_for_the_board_is_an_error_that_says_the_numbers():
    wordy = agent("step", "word " * 50)
    pool = ScriptedPool(dict.fromkeys("ab", wordy), fields={"a": {"context_length": 110}})
    reply = discuss(pool, max_rounds=4)
    reasons = [line["reason"] for line in reply.meta["failed"] if line["model"] == "a"]
    assert any(re.search(r"context of 110 tokens, 64 are for the reply and about \d+", reason) for reason in reasons)
    assert "agent 2" in {e["author"] for e in reply.meta["board"]}


def test_a_prompt_that_the_engine_refuses_is_asked_with_a_shorter_board():
    def refuses(call):
        if len(call.prompt) > 900:
            return PromptTooLong("too long")
        return agent("step", "w" * 300)(call)

    pool = ScriptedPool({"a": refuses}, fields={"a": {"context_length": None}})
    reply = discuss(pool, max_rounds=6)
    assert len(reply.meta["board"]) == 7 and reply.meta["failed"] == []
