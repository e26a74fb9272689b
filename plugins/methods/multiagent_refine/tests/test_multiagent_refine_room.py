"""Discussions that do not fit a context: what is shortened, and in which order."""

from __future__ import annotations

import pytest
from refining_agents import QUESTION, discuss, others, own

from moco_core import Generation, PromptTooLong, Usage
from moco_method_multiagent_refine.method import MultiagentRefine
from moco_method_multiagent_refine.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method


@pytest.mark.parametrize("measured", [True, False])
def test_an_answer_of_ten_contexts_leaves_question_and_instruction_whole(measured):
    """A context of 400 tokens, one word each: quotes are cut to their tails, and the prompt fits."""
    long = "filler " * 4000 + "so the answer is A"

    def say(call):
        usage = Usage(len(call.transcript.split()), len(long.split())) if measured else Usage()
        return Generation(text=long, usage=usage) if not others(call) else "the answer is A"

    fields = {name: {"context_length": 400} for name in ("a", "b", "c")}
    pool = ScriptedPool(dict.fromkeys(("a", "b", "c"), say), fields=fields)
    method = MultiagentRefine(Options(rounds=1, summarizer=0, max_new_tokens=50))
    reply = run_method(method, pool, questions=[QUESTION]).replies["q"]
    assert reply.meta["quotes_cut"] is True
    for call in pool.history[3:]:
        assert call.prompt.startswith(QUESTION.text()) and call.prompt.endswith(QUESTION.answer_format)
        assert len(call.prompt.split()) <= 350
        assert all(text.endswith("so the answer is A") for text in others(call) + own(call) if "filler" in text)


def test_a_prompt_that_is_still_too_long_is_halved_until_it_fits():
    def say(call):
        if others(call) and len(call.prompt) > 600:
            return PromptTooLong("too long")
        return "x" * 5000 + " the answer is A"

    fields = {name: {"context_length": None} for name in ("a", "b")}
    pool = ScriptedPool({"a": say, "b": say}, fields=fields)
    reply = discuss(pool, rounds=1, summarizer="vote")
    assert reply.meta["kept"] == [] and reply.meta["quotes_cut"] is True
    served = [c for c in pool.history if others(c) and len(c.prompt) <= 600]
    assert len(served) == 2 and all(c.prompt.endswith(QUESTION.answer_format) for c in served)


def test_a_model_that_never_fits_keeps_its_answer():
    pool = ScriptedPool(
        {"a": lambda c: PromptTooLong("tiny") if others(c) else "the answer is A", "b": "the answer is B"}
    )
    reply = discuss(pool, rounds=1, summarizer="vote")
    assert reply.meta["answers"][1] == ["a", "b"] and reply.meta["kept"][0]["reason"] == "tiny"


def test_old_turns_are_forgotten_before_quotes_vanish():
    def say(call):
        return "word " * 60 + f"the answer is {call.model}"

    fields = {name: {"context_length": 900} for name in ("a", "b")}
    pool = ScriptedPool({"a": say, "b": say}, fields=fields)
    method = MultiagentRefine(Options(rounds=6, summarizer="vote", history="full", max_new_tokens=100))
    run_method(method, pool, questions=[QUESTION])
    last = [c for c in pool.history if c.model == "a"][-1]
    assert len(last.transcript.split()) <= 800
    assert own(last)[0].endswith("the answer is a") and others(last)[0].endswith("the answer is b")
    assert 1 < len(last.messages) < 13
