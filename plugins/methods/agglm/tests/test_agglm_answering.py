"""What an aggregator reads, in which order, and what is answered where it says nothing that can be read."""

from __future__ import annotations

import attrs
import pytest
from aggregated_solutions import DEV, GREEDY, TEST, fitted, shown, wrong_majority

from moco_core import CapabilityError, ConfigError, Generation, Message, ModelCallError, Question
from moco_core.options import plain
from moco_method_agglm.method import Agglm
from moco_method_agglm.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN


def test_a_set_of_one_shows_exactly_that_solution_and_a_copier_reproduces_it():
    def copy(call):
        return shown(call.prompt)[0] if shown(call.prompt) else "words, and the answer is 7"

    pool = ScriptedPool({"a": copy})
    outcome = fitted(pool, train=False, m=1)[1]
    assert set(outcome.texts.values()) == {"words, and the answer is 7"}
    assert shown(pool.prompts()[-1]) == ["words, and the answer is 7"]
    assert pool.prompts()[-1].startswith(TEST[-1].question.text())


def test_an_unreadable_final_solution_is_asked_for_once_more_then_the_majority_answers():
    def reader(texts):
        left = iter(texts)
        return lambda call: next(left) if shown(call.prompt) else "the answer is wrong"

    pool = ScriptedPool({"a": reader(["???", "the answer is 5"]), "b": "the answer is wrong"})
    reply = fitted(pool, ask=TEST[:1], train=False, m=4)[1].replies["t0"]
    assert (reply.text, reply.meta["final"], reply.meta["attempts"]) == (
        "the answer is 5",
        "aggregated",
        ["unparsed", "parsed"],
    )
    assert [c.params["temperature"] for c in pool.history if shown(c.prompt)] == [0.0, 1.0]
    pool = ScriptedPool({"a": reader(["???", "???"]), "b": "the answer is wrong"})
    method, outcome = fitted(pool, ask=TEST[:1], train=False, m=4)
    reply = outcome.replies["t0"]
    assert (reply.text, reply.meta["final"], reply.meta["model"]) == ("the answer is wrong", "majority", "a")
    assert outcome.calls_per_question["t0"] == method.cost(2, 0).respond == 6
    failing = ScriptedPool({"a": reader([ModelCallError("down")]), "b": "the answer is b"})
    reply = fitted(failing, ask=TEST[:1], train=False, m=3)[1].replies["t0"]
    assert reply.meta["attempts"] == ["down"] and reply.meta["final"] == "majority"


def test_solutions_that_agree_are_handed_on_where_that_is_asked_for():
    pool = ScriptedPool(dict.fromkeys("ab", lambda c: "odd" if shown(c.prompt) else "so the answer is 3"))
    outcome = fitted(pool, train=False, m=4, skip_if_unanimous=True)[1]
    assert {r.meta["final"] for r in outcome.replies.values()} == {"unanimous"}
    assert set(outcome.calls_per_question.values()) == {4}
    mixed = ScriptedPool({"a": "the answer is 3", "b": lambda c: "the answer is 3" if shown(c.prompt) else "??"})
    assert fitted(mixed, train=False, m=2, skip_if_unanimous=True)[1].replies["t0"].meta["final"] == "aggregated"


def test_failed_and_empty_solutions_are_not_shown_and_the_rest_answers():
    pool = ScriptedPool(
        {
            "a": lambda c: "the answer is 1" if shown(c.prompt) else "the answer is 2",
            "b": ModelCallError("down"),
            "c": "",
        }
        | {"b": lambda c: ModelCallError("down")}
    )
    reply = fitted(pool, ask=TEST[:1], train=False, m=3)[1].replies["t0"]
    assert reply.meta["final"] == "aggregated" and shown(pool.prompts("a")[-1]) == ["the answer is 2"]
    assert [s.get("failed") for s in reply.meta["solutions"]] == [None, "down", None]
    silent = ScriptedPool(dict.fromkeys("ab", ""))
    assert fitted(silent, ask=TEST[:1], train=False, m=2)[1].replies["t0"].meta["final"] == "unparsed"


def test_reasoning_is_not_shown_and_an_earlier_conversation_stands_in_front():
    question = Question(
        id="q", prompt="Which?", system="Be brief.", history=(Message("user", "Hi."), Message("assistant", "Ho."))
    )
    pool = ScriptedPool({"a": "<think>HIDDEN</think>the answer is 4"})
    run_method(Agglm(Options(train=False, m=2)), pool, questions=[question], sampling=GREEDY)
    last = pool.history[-1]
    assert [m.content for m in last.messages[:-1]] == ["Be brief.", "Hi.", "Ho."]
    assert shown(last.prompt) == ["the answer is 4"] * 2 and "HIDDEN" not in last.prompt


def test_the_seed_moves_the_order_of_showing_and_nothing_else_of_the_prompt():
    names = [f"m{i}" for i in range(6)]
    pools = [ScriptedPool({n: (lambda c: f"the answer is {c.model}") for n in names}) for _ in range(3)]
    for pool, seed in zip(pools, (0, 0, 1), strict=True):
        fitted(pool, ask=TEST[:1], train=False, m=6, seed=seed)
    first, same, other = (pool.prompts("m0")[-1] for pool in pools)
    assert first == same != other
    assert shown(first) != shown(other) and sorted(shown(first)) == sorted(shown(other))


def test_long_solutions_keep_their_ends_and_the_question_is_never_cut():
    def say(call):
        return "the answer is 1" if shown(call.prompt) else "x" * 2000 + " so the answer is 1"

    pool = ScriptedPool(dict.fromkeys("ab", say), fields={"a": {"context_length": 400}})
    outcome = fitted(pool, dev=DEV[:4], ask=TEST[:1])[1]
    (_, job) = pool.trainings[0]
    read = [pool.prompts("a-agglm")[-1], *(row.prompt[-1].content for row in job.rows)]
    for prompt in read:
        assert prompt.startswith("Which is ") and len(shown(prompt)) == 4 and len(prompt.split()) <= 400 - 64
        assert all(text.startswith("... ") and text.endswith("so the answer is 1") for text in shown(prompt))
    assert outcome.replies["t0"].meta["cut"] is True and job.max_length == 400


def test_an_aggregator_that_cannot_hold_m_solutions_is_refused_before_any_work_with_the_numbers():
    pool = ScriptedPool(dict.fromkeys("ab", "x"), fields={"a": {"context_length": 400}})
    numbers = (
        "a prompt may have 336 tokens, beside 64 of the reply; .* take about 225, which leaves 111 for 16 solutions"
    )
    with pytest.raises(CapabilityError, match=f"agglm.aggregator: a cannot read 16 solutions: {numbers}"):
        fitted(pool, m=16)
    assert pool.history == [] and pool.trainings == []
    (problem,) = Agglm(Options(m=16, max_new_tokens=300)).needs().problems(pool.pool)
    assert "a's context of 400 tokens less 300 of the reply" in problem and "cannot hold 16 solutions" in problem


def test_a_prompt_version_that_is_gone_is_refused(tmp_path):
    pool = wrong_majority()
    state = plain(fitted(pool)[1].state)
    with pytest.raises(ConfigError, match="fitted for prompt version 0, this is version 1; fit it again"):
        Agglm(Options()).restore(pool.pool, {**state, "trained": None, "prompt": 0}, tmp_path)


def test_a_ratio_is_measured_on_the_aggregators_own_solutions():
    def say(call):
        text = "x" * 400
        return Generation(text=text, usage=attrs.evolve(_usage(call), completion_tokens=400))

    pool = ScriptedPool(dict.fromkeys("ab", say))
    state = fitted(pool, dev=DEV[:2])[1].state
    assert state["ratio"] == 1.0 != CHARACTERS_PER_TOKEN


def _usage(call):
    from moco_core.types import Usage

    return Usage(len(call.transcript.split()), 0)
