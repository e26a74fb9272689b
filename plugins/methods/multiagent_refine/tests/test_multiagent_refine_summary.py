"""The last word: summary or vote, who gives it, and what is told of rounds on dev."""

from __future__ import annotations

import re

import pytest
from refining_agents import QUESTION, discuss, others, telling

from moco_core import ConfigError, Example, ModelCallError, Question, Sampling, plain
from moco_method_multiagent_refine.checking import flips
from moco_method_multiagent_refine.method import MultiagentRefine
from moco_method_multiagent_refine.options import Options
from moco_toolkit_authoring import ScriptedCall, ScriptedPool, run_method


def is_summary(call: ScriptedCall) -> bool:
    return "one final answer" in call.prompt


def test_the_summarizer_reads_all_last_answers_greedily():
    pool = ScriptedPool({"x": telling, "y": lambda c: "the answer is S" if is_summary(c) else telling(c)})
    reply = discuss(pool, rounds=1, summarizer="y")
    assert reply.text == "the answer is S" and reply.meta["final"] == "summary" and reply.meta["model"] == "y"
    (summary,) = [c for c in pool.history if is_summary(c)]
    assert {t.split(" ")[0] for t in others(summary)} == {"X#1", "Y#1"}
    assert summary.params["temperature"] == 0.0 and "top_p" not in summary.params
    assert all(c.params["temperature"] == 0.7 and c.params["top_p"] == 0.9 for c in pool.history if not is_summary(c))


def test_an_unparsed_or_failed_summary_falls_back_to_the_vote():
    for said in ("no idea", "", ModelCallError("down")):
        summary = lambda c, said=said: said if is_summary(c) else "the answer is B"  # noqa: E731
        pool = ScriptedPool({"a": "the answer is A", "b1": summary, "b2": "the answer is B"})
        reply = discuss(pool, rounds=0, summarizer=1)
        assert (reply.text, reply.meta["final"]) == ("the answer is B", "vote_after_unparsed_summary")


def test_nothing_parsed_gives_the_summarizers_own_reply_flagged():
    pool = ScriptedPool({"a": "I am A", "b": "I am B"})
    reply = discuss(pool, rounds=1, summarizer="b")
    assert reply.text == "I am B" and reply.meta["unparsed"] is True


def dev_where(sums: dict[str, int], solo: dict[str, int]):
    """Dev questions; ``solo[m]`` of 4 are answered alone by m, ``sums[m]`` of 4 are summarised correctly by m."""
    dev = [Example(question=Question(id=f"d{i}", prompt=f"dev <{i}>"), references=("a",)) for i in range(4)]

    def script(name):
        def say(call):
            found = re.search(r"dev <(\d)>", call.transcript)
            if not found:
                return f"the answer is {name}"
            right = int(found[1]) < (sums if is_summary(call) else solo)[name]
            return f"the answer is {'a' if right else 'b'}"

        return say

    return dev, ScriptedPool({name: script(name) for name in solo})


def test_the_best_summarizer_may_not_be_the_best_alone():
    dev, pool = dev_where(sums={"x": 1, "y": 4, "z": 4}, solo={"x": 4, "y": 2, "z": 2})
    assert discuss(pool, dev=dev, summarizer="best").meta["model"] == "x"
    assert discuss(pool, dev=dev, summarizer="best_summarizer").meta["model"] == "y"
    dev, pool = dev_where(sums={"x": 1, "y": 4, "z": 4}, solo={"x": 4, "y": 1, "z": 2})
    assert discuss(pool, dev=dev, summarizer="best_summarizer").meta["model"] == "z"


def test_vote_ties_go_to_the_best_dev_model():
    """Equal votes: the model that did better on dev wins after an unparsed summary, the first one without a fit."""
    dev, pool = dev_where(sums={"x": 0, "y": 0}, solo={"x": 1, "y": 4})
    scripts = dict(pool.engine.scripts)
    for name in ("x", "y"):
        pool.engine.scripts[name] = lambda c, say=scripts[name]: "no idea" if is_summary(c) else say(c)
    assert discuss(pool, dev=dev, rounds=0).meta["model"] == "y"
    assert discuss(pool, rounds=0, summarizer="vote").meta["model"] == "x"


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"summarizer": "vote"}, 0),
        ({"summarizer": "y"}, 0),
        ({}, 2 * 4),
        ({"summarizer": "best_summarizer", "rounds": 1}, 2 * 4 + (2 * 2 + 2) * 4),
        ({"summarizer": "best_summarizer", "rounds": 1, "dev_sample": 2}, 2 * 4 + (2 * 2 + 2) * 2),
    ],
)
def test_fit_makes_the_calls_it_predicts(options, calls):
    dev, pool = dev_where(sums={"x": 4, "y": 4}, solo={"x": 2, "y": 3})
    method = MultiagentRefine(Options(**options))
    assert run_method(method, pool, dev=dev).calls["fit"] == method.cost(2, 4).fit == calls


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"summarizer": "vote", "rounds": 1, "check_dev": True}, 2 * 4 + 4 * 4),
        ({"summarizer": "y", "rounds": 1, "check_dev": True}, 2 * 4 + 5 * 4),
        ({"summarizer": "y", "rounds": 1, "check_dev": True, "dev_sample": 2}, 2 * 4 + 5 * 2),
    ],
)
def test_checking_makes_the_calls_it_predicts(options, calls):
    dev, pool = dev_where(sums={"x": 4, "y": 4}, solo={"x": 2, "y": 3})
    method = MultiagentRefine(Options(**options))
    assert run_method(method, pool, dev=dev).calls["fit"] == method.cost(2, 4).fit == calls


def test_flips_by_hand():
    """Two questions, two models; the second discussion ended after round 1."""
    scores = [[[1, 0], [1, 1], [0, 1]], [[0, 0], [1, 0]]]
    assert flips(scores) == [
        {"round": 0, "mean": 0.25, "repaired": 0, "broken": 0},
        {"round": 1, "mean": 0.75, "repaired": 2, "broken": 0},
        {"round": 2, "mean": 0.5, "repaired": 0, "broken": 1},
    ]


def test_checking_on_dev_tells_what_rounds_repair_and_break_and_changes_nothing():
    """x is right on dev 0 and 1 and copies y; y is right on dev 0 and 2 and stays: copying repairs dev 2 and breaks dev 1."""
    dev, _ = dev_where(sums={}, solo={})

    def say(name, right):
        def script(call):
            if name == "x" and others(call):
                return others(call)[0]
            found = re.search(r"dev <(\d)>", call.transcript)
            return f"the answer is {'a' if found and int(found[1]) in right else name}"

        return script

    pool = ScriptedPool({"x": say("x", (0, 1)), "y": say("y", (0, 2))})
    method = MultiagentRefine(Options(rounds=1, summarizer="vote", check_dev=True))
    outcome = run_method(method, pool, dev=dev, questions=[QUESTION])
    assert outcome.noted("rounds") == [
        {"round": 0, "mean": 0.5, "repaired": 0, "broken": 0},
        {"round": 1, "mean": 0.5, "repaired": 1, "broken": 1},
    ]
    assert (outcome.noted("discussed_dev_score"), outcome.noted("best_single_dev_score")) == (0.5, 0.5)
    assert outcome.warnings == []
    alone = run_method(MultiagentRefine(Options(rounds=1, summarizer="vote")), pool, questions=[QUESTION])
    assert outcome.replies["q"] == alone.replies["q"] and outcome.state == alone.state


def test_a_discussion_worse_than_the_best_model_is_told():
    dev, pool = dev_where(sums={"x": 0, "y": 0}, solo={"x": 1, "y": 4})
    outcome = run_method(MultiagentRefine(Options(rounds=0, summarizer="y", check_dev=True)), pool, dev=dev)
    assert outcome.warnings == [
        "multiagent_refine: on dev, discussing scores 0.000 and the best single model (y) 1.000"
    ]
    with pytest.raises(ConfigError, match=r"multiagent_refine.check_dev needs dev examples"):
        run_method(MultiagentRefine(Options(summarizer="vote", check_dev=True)), pool)


@pytest.mark.parametrize("state", [{"summarizer": "y", "skills": [0.5, 1.0]}, {"summarizer": None, "skills": None}])
def test_a_system_that_an_earlier_version_saved_is_read_and_saved_alike(state):
    _, pool = dev_where(sums={}, solo={"x": 1, "y": 1})
    assert plain(MultiagentRefine(Options()).restore(pool.pool, state, None).state()) == state
    with pytest.raises(ConfigError, match=r"multiagent_refine.summarizer: no model 'z'"):
        MultiagentRefine(Options()).restore(pool.pool, {"summarizer": "z", "skills": None}, None)


def test_dev_selection_is_greedy_and_uses_the_task_prompt():
    dev, pool = dev_where(sums={"x": 4, "y": 4}, solo={"x": 2, "y": 3})
    run_method(MultiagentRefine(Options()), pool, dev=dev, sampling=Sampling(temperature=0.7))
    assert {c.params["temperature"] for c in pool.history} == {0.0}
    assert {c.prompt for c in pool.history} == {e.question.text() for e in dev}
