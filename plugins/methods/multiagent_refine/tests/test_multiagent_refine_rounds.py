"""Rounds of refinement: how many calls, when they end, and what an empty, failed or missing reply does."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
from refining_agents import QUESTION, discuss, others, own, telling

from moco_core import ModelCallError
from moco_method_multiagent_refine.method import MultiagentRefine
from moco_method_multiagent_refine.options import Options
from moco_toolkit_authoring import ScriptedCall, ScriptedPool, example_questions, fallible, run_method


def majority(call: ScriptedCall) -> str:
    """Adopt the majority of the answers seen; the first answer is the first letter of the name."""
    seen = others(call) + own(call)
    if not seen:
        return f"the answer is {call.model[0].upper()}"
    return Counter(seen).most_common(1)[0][0]


def copycat(call: ScriptedCall) -> str:
    return others(call)[0] if others(call) else f"the answer is {call.model[0].upper()}"


@pytest.mark.parametrize(("models", "rounds"), [(1, 0), (1, 3), (3, 0), (3, 2)])
def test_call_counts(models, rounds):
    names = [f"m{i}" for i in range(models)]
    for summarizer, extra in (("vote", 0), (0, 1)):
        pool = ScriptedPool(dict.fromkeys(names, telling))
        discuss(pool, rounds=rounds, summarizer=summarizer)
        assert len(pool.history) == models * (rounds + 1) + extra


def test_one_model_without_rounds_and_with_a_vote_is_that_model():
    pool = ScriptedPool({"only": fallible})
    questions = example_questions(5)
    method = MultiagentRefine(Options(rounds=0, summarizer="vote"))
    outcome = run_method(method, pool, questions=questions)
    assert len(pool.history) == 5
    for call, question in zip(pool.history, questions, strict=True):
        assert outcome.replies[question.id].text == fallible(call)
    mute = ScriptedPool({"only": "  "})
    assert discuss(mute, rounds=0, summarizer="vote").text == "  "


def test_one_model_refines_itself():
    pool = ScriptedPool({"only": telling})
    reply = discuss(pool, rounds=2, summarizer="vote")
    assert reply.text.startswith("ONLY#2")
    assert "Check your own answer step by step" in pool.history[1].prompt and not others(pool.history[1])


def test_adopting_the_majority_converges_and_consensus_stops():
    make = lambda: ScriptedPool({"a1": majority, "a2": majority, "b": majority})  # noqa: E731
    reply = discuss(make(), rounds=1, summarizer="vote")
    assert reply.meta["answers"] == [["a", "a", "b"], ["a", "a", "a"]]
    for rounds in (2, 9):
        pool = make()
        reply = discuss(pool, rounds=rounds, summarizer="vote", stop="consensus")
        assert len(pool.history) == 6 and reply.meta["rounds"] == 1


def test_rounds_are_simultaneous():
    """Two models that copy each other swap their answers; one after the other they would agree."""
    pool = ScriptedPool({"a": copycat, "b": copycat})
    reply = discuss(pool, rounds=3, summarizer="vote")
    assert reply.meta["answers"] == [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]]


def test_a_fixed_point_stops_one_round_after_the_last_change():
    pool = ScriptedPool(dict.fromkeys(["x", "y"], telling))
    assert discuss(pool, rounds=9, summarizer="vote", stop="fixed_point").meta["rounds"] == 1
    assert len(pool.history) == 4
    pool = ScriptedPool({"a": copycat, "b": copycat})
    assert discuss(pool, rounds=5, summarizer="vote", stop="fixed_point").meta["rounds"] == 5
    mute = ScriptedPool(dict.fromkeys(["x", "y"], "no idea"))
    assert discuss(mute, rounds=3, summarizer="vote", stop="fixed_point").meta["rounds"] == 3


def test_open_questions_hold_all_rounds():
    pool = ScriptedPool(dict.fromkeys(["x", "y"], "the answer is Z"))
    question = attrs.evolve(QUESTION, answer_kind="open")
    assert discuss(pool, question, rounds=3, summarizer="vote", stop="consensus").meta["rounds"] == 3


def test_an_empty_or_failed_reply_keeps_the_last_one():
    def breaks(call):
        if not own(call):
            return "the answer is A"
        return "" if call.model == "a" else ModelCallError("down")

    pool = ScriptedPool({"a": breaks, "b": breaks, "c": "the answer is C"})
    reply = discuss(pool, rounds=2, summarizer="vote")
    assert reply.text == "the answer is A" and reply.meta["answers"] == [["a", "a", "c"]] * 3
    assert [(k["round"], k["model"], k["reason"]) for k in reply.meta["kept"]] == [
        (1, "a", "empty reply"), (1, "b", "down"), (2, "a", "empty reply"), (2, "b", "down")
    ]  # fmt: skip


def test_who_never_answered_joins_without_an_own_answer():
    def late(call):
        return "the answer is L" if others(call) else ModelCallError("down")

    pool = ScriptedPool({"late": late, "b": "the answer is B"})
    reply = discuss(pool, rounds=1, summarizer="vote")
    assert reply.meta["answers"] == [[None, "b"], ["l", "b"]]
    silent = ScriptedPool(dict.fromkeys(["a", "b"], lambda c: ModelCallError("down")))
    with pytest.raises(ModelCallError, match="down"):
        discuss(silent, summarizer="vote")


def test_only_what_follows_the_reasoning_is_quoted():
    pool = ScriptedPool({"a": "<think>secret A</think>the answer is A", "b": "<think>cut off", "c": "the answer is C"})
    discuss(pool, rounds=1, summarizer="vote")
    for call in pool.history[3:]:
        assert "secret" not in call.prompt and "cut off" not in call.prompt
    assert others(next(c for c in pool.history[3:] if c.model == "c")) == ["the answer is A"]
