"""The blackboard on scripted models: boards by hand, who acts and when it ends, what it costs, bad input."""

from __future__ import annotations

import asyncio
import random
import re
from types import SimpleNamespace

import attrs
import pytest
from bbmas_agents import GREEDY, QUESTION, agent, discuss, entries, stage

from moco_core import ConfigError, Sampling
from moco_core.options import build
from moco_method_bbmas.agents import choose_actors
from moco_method_bbmas.method import Bbmas
from moco_method_bbmas.options import Options
from moco_toolkit_authoring import (
    ScriptedPool,
    example_questions,
    examples,
    fallible,
    method_checks,
    open_state,
    run_method,
)

test_conformance = method_checks(
    "bbmas",
    settings=[
        {"max_rounds": 3},
        {"max_rounds": 2, "max_agents_per_round": 2, "min_agents_to_stop": 2, "max_retries": 0, "rank_by_dev": True},
        {"control": "controller", "max_rounds": 2, "max_retries": 1},
    ],
)


def number_of(call) -> int:
    return int(re.findall(r"You are agent (\d+)", call.prompt)[-1])


def test_the_board_the_stop_and_the_calls_of_two_agents_by_hand():
    """One acts at a time and rests a round, so two agents alternate: plan, step that refers to it, conclusion."""

    def act(call):
        return ("plan", "step", "finalize")[len(entries(call))]

    def say(call):
        return ("first count", "as #1 says: three, see #7", "the answer is C")[len(entries(call))]

    pool = ScriptedPool({"a": agent(act, say), "b": agent(act, say)})
    reply = discuss(pool)
    first, second = (("agent 1", "a"), ("agent 2", "b"))[:: 1 if pool.history[0].model == "a" else -1]
    assert [
        (e["author"], e["model"], e["round"], e["kind"], e["text"], e["references"]) for e in reply.meta["board"]
    ] == [
        (*first, 1, "plan", "first count", []),
        (*second, 2, "step", "as #1 says: three, see #7", [1]),
        (*first, 3, "finalize", "the answer is C", []),
    ]
    assert [e["id"] for e in reply.meta["board"]] == [1, 2, 3]
    assert (reply.text, reply.meta["final"], reply.meta["rounds"], len(pool.history)) == (
        "the answer is C",
        "concluded",
        3,
        6,
    )
    assert reply.meta["model"] == first[1] and reply.meta["failed"] == []


@pytest.mark.parametrize("size", [1, 2, 5, 16, 32])
def test_every_agent_asks_its_own_model_whatever_the_size_of_the_pool(size):
    names = [f"m{i}" for i in range(1, size + 1)]
    pool = ScriptedPool(dict.fromkeys(names, agent("finalize", lambda c: f"the answer is {c.model}")))
    reply = discuss(pool, max_agents_per_round=size, min_agents_to_stop=size, max_rounds=2)
    assert reply.meta["rounds"] == 1 and len(reply.meta["board"]) == size
    for call in pool.history:
        if stage(call) != "vote":
            assert call.model == f"m{number_of(call)}"
    assert [e["text"] for e in reply.meta["board"]] == [f"the answer is {name}" for name in names]
    assert len(pool.history) == 2 * size + (size if size > 1 else 0)


def test_one_agent_that_concludes_at_once_gives_its_own_reply():
    pool = ScriptedPool({"only": agent("finalize", "Because.\nthe answer is A")})
    reply = discuss(pool, max_rounds=1)
    assert reply.text == "Because.\nthe answer is A" and len(pool.history) == 2


@pytest.mark.parametrize("most", [1, 2, 3])
def test_all_must_conclude_and_the_discussion_still_ends(most):
    """Stops only once the latest entry of all three is a conclusion, over however many rounds."""
    pool = ScriptedPool(dict.fromkeys("abc", agent("finalize")))
    reply = discuss(pool, max_agents_per_round=most, min_agents_to_stop=3, max_rounds=20)
    assert {e["author"] for e in reply.meta["board"]} == {"agent 1", "agent 2", "agent 3"}
    assert reply.meta["forced"] is False and reply.meta["rounds"] < 20
    never = ScriptedPool(dict.fromkeys("abc", agent("step", "thinking")))
    reply = discuss(never, max_agents_per_round=most, min_agents_to_stop=3, max_rounds=4)
    assert reply.meta["rounds"] == 4 and reply.meta["forced"] is True


def test_who_takes_its_conclusion_back_no_longer_counts():
    """Agent a concludes first and then only takes steps; b concludes. Two conclusions are needed and never stand together."""

    def act(call):
        return "finalize" if call.model == "b" or not entries(call) else "step"

    pool = ScriptedPool({"a": agent(act), "b": agent(act)})
    reply = discuss(pool, max_agents_per_round=2, min_agents_to_stop=2, max_rounds=1)
    assert reply.meta["forced"] is False and len(reply.meta["board"]) == 2  # both at once, on the same empty board
    pool = ScriptedPool({"a": agent(act), "b": agent("step")})
    reply = discuss(pool, max_agents_per_round=2, min_agents_to_stop=2, max_rounds=2)
    assert [e["kind"] for e in reply.meta["board"]] == ["finalize", "step", "step", "step", "finalize", "finalize"]
    assert reply.meta["forced"] is True


def table_for_choice(seed=0, **options):
    context = SimpleNamespace(rng=lambda *parts: random.Random(repr((seed, parts))))
    return SimpleNamespace(options=Options(**options), context=context)


def test_who_was_idle_for_too_long_acts_and_who_just_acted_rests():
    for seed in range(20):
        assert choose_actors(table_for_choice(seed), 9, [1, 7, 8, 6, 7]) == [0]  # idle for 7 rounds, more than 6
        assert choose_actors(table_for_choice(seed), 8, [1, 5, 7]) in ([0], [1])  # idle for 6: not forced, c rests
        assert 2 not in choose_actors(table_for_choice(seed, max_agents_per_round=3), 8, [1, 5, 7])
        assert choose_actors(table_for_choice(seed, max_agents_per_round=3), 2, [1, 1, 1]) == [0, 1, 2]  # nobody rested
        forced = choose_actors(table_for_choice(seed, max_agents_per_round=2, agent_idle_threshold=2), 9, [3, 1, 2, 8])
        assert forced == [1, 2]  # the two that waited longest
    drawn = {choose_actors(table_for_choice(seed), 1, [0, 0, 0])[0] for seed in range(40)}
    assert drawn == {0, 1, 2}


def test_actors_of_a_round_read_the_same_board():
    pool = ScriptedPool(dict.fromkeys("abc", agent("step", lambda c: f"{c.model} read {len(entries(c))}")))
    reply = discuss(pool, max_agents_per_round=3, max_rounds=2, min_agents_to_stop=3)
    assert [e["text"] for e in reply.meta["board"]][:6] == [
        "a read 0", "b read 0", "c read 0", "a read 3", "b read 3", "c read 3"
    ]  # fmt: skip


def test_one_seed_gives_one_board_whatever_runs_beside_it():
    questions = example_questions(6)

    def boards(**run):
        pool = ScriptedPool(dict.fromkeys("abcd", fallible))
        method = Bbmas(Options(max_rounds=4, max_retries=0))
        return {q: r.meta["board"] for q, r in run_method(method, pool, **run).replies.items()}

    alone = boards(questions=questions, in_flight=1)
    assert alone == boards(questions=questions[::-1], in_flight=64)
    assert alone != boards(questions=questions, seed=1)


def test_rounds_of_different_questions_need_no_barrier():
    """Eighty questions over five models, three rounds of two calls each: about as many batches as rounds of votes."""
    questions = [attrs.evolve(QUESTION, id=f"q{i}", prompt=f"Which letter, {i}?") for i in range(80)]
    pool = ScriptedPool(dict.fromkeys("abcde", agent("step", "thinking")))
    run_method(Bbmas(Options(max_rounds=3, max_agents_per_round=5)), pool, questions=questions, sampling=GREEDY)
    votes = ScriptedPool(dict.fromkeys("abcde", "x"))

    async def vote():
        async with open_state(sampling=GREEDY) as state:
            contexts = [state.context("respond", question) for question in questions]
            await asyncio.gather(*(c.generate(m, c.question) for c in contexts for m in votes.pool))

    asyncio.run(vote())
    # two calls a round and, as nobody concludes, one at the end and one vote; each agent rests every other round
    assert len(pool.engine.batches) <= len(votes.engine.batches) * (2 * 3 + 2)


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"max_rounds": 3, "max_retries": 0}, 3 * 2 + 2 * 3),
        ({"max_rounds": 2, "max_retries": 0, "max_agents_per_round": 3}, 2 * 2 * 3 + 2 * 3),
        ({"max_rounds": 2, "max_retries": 2}, None),
    ],
)
def test_a_question_makes_the_calls_it_predicts(options, calls):
    """Nobody concludes and the last answers differ, so that all rounds, last answers and votes are paid for."""
    unreadable = calls is None

    def script(name):
        says = lambda c: f"the answer is {name}" if stage(c) == "finalize" else ("" if unreadable else "thinking")  # noqa: E731
        return agent(lambda c: "dance" if unreadable else "step", says)

    pool = ScriptedPool({name: script(name) for name in "abc"})
    method = Bbmas(Options(**options))
    outcome = run_method(method, pool, questions=[QUESTION], sampling=Sampling(temperature=0.7))
    assert outcome.calls["respond"] == method.cost(3, 0).respond == (calls or 2 * 2 * 3 + 2 * 3)


def test_dev_is_asked_only_for_a_ranking():
    pool = ScriptedPool(dict.fromkeys("ab", fallible))
    for options, fit in (({}, 0), ({"rank_by_dev": True}, 2 * 4)):
        method = Bbmas(Options(max_rounds=1, **options))
        assert run_method(method, pool, dev=examples(4)).calls["fit"] == method.cost(2, 4).fit == fit
    with pytest.raises(ConfigError, match=r"bbmas.rank_by_dev needs dev examples"):
        run_method(Bbmas(Options(rank_by_dev=True)), pool)


def test_bad_options_are_told_in_one_line():
    pool = ScriptedPool(dict.fromkeys(["alpha", "beta"], fallible)).pool

    def problem(**options):
        return Bbmas(build(Options, options)).needs().problems(pool)[-1]

    assert "bbmas.roles.critic: no model 'alfa'" in problem(roles={"critic": "alfa"})
    assert "did you mean 'alpha'" in problem(roles={"critic": "alfa"})
    assert "there is no role 'crtic'" in problem(roles={"crtic": 0}) and "'critic'" in problem(roles={"crtic": 0})
    assert "model index 7 is out of range" in problem(roles={"decider": 7})
    assert "bbmas.min_agents_to_stop: 5 of 2 models cannot conclude" in problem(min_agents_to_stop=5)
    with pytest.raises(ConfigError, match="max_rounds: expected int >= 1, got 0"):
        build(Options, {"max_rounds": 0})
    with pytest.raises(ConfigError, match="max_board_tokens"):
        build(Options, {"max_board_tokens": 3})
