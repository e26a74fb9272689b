"""Heterogeneous swarms on scripted models: answering through a graph, what it costs, bad input."""

from __future__ import annotations

import asyncio

import attrs
import pytest
from swarm_searches import GREEDY, QUESTION, fit, near, right_if_checked

from moco_core import ConfigError, Example, ModelCallError, Question, Sampling
from moco_core.options import NoOptions, build
from moco_method_heterogeneous_swarms.method import HeterogeneousSwarms
from moco_method_heterogeneous_swarms.options import Options
from moco_toolkit_authoring import (
    LastWord,
    ScriptedPool,
    example_questions,
    examples,
    fallible,
    method_checks,
    open_state,
    run_method,
)
from moco_toolkit_merging.testing import MergeablePool, Utility

test_conformance = method_checks(
    "heterogeneous_swarms",
    settings=[
        {"population": 3, "max_iterations": 2},
        {"population": 2, "max_iterations": 1, "decode_top_p": 0.7, "check_dev": True, "dev_ratio": 0.5},
    ],
    pool=lambda: ScriptedPool(dict.fromkeys(["m0", "m1", "m2"], fallible)),
)


def quotes(call):
    return call.prompt.count("<quote>")


def system_of(pool, edges, **options):
    state = {"edges": edges, "assignment": list(range(len(pool.pool))), "merges": [], "facts": {}}
    return HeterogeneousSwarms(build(Options, options)).restore(pool.pool, state, None)


def answer(pool, edges, question=QUESTION, sampling=GREEDY, **options):
    system = system_of(pool, edges, **options)

    async def run():
        async with open_state(sampling=sampling) as state:
            context = state.context("respond", question)
            return await system.respond(question, context), context.calls

    return asyncio.run(run())


def test_who_reads_whom_by_hand():
    """0 and 1 answer alone, 2 reads both in node order, 3 reads 2 and has the last word."""
    pool = ScriptedPool({name: f"the answer is {name.upper()}" for name in "abcd"})
    reply, calls = answer(pool, [(0, 2), (1, 2), (2, 3)])
    assert reply.text == "the answer is D" and [c.model for c in calls] == ["a", "b", "c", "d"]
    seen = {c.model: c.prompt for c in pool.history}
    assert seen["a"] == seen["b"] == QUESTION.text()
    assert "Answer 1:\n<quote>\nthe answer is A\n</quote>\nAnswer 2:\n<quote>\nthe answer is B\n</quote>" in seen["c"]
    assert seen["d"].count("<quote>") == 1 and "the answer is C" in seen["d"] and "one final answer" in seen["d"]
    assert "some may be wrong" in seen["c"] and "one final answer" not in seen["c"]
    assert reply.meta["nodes"] == [
        {"node": 0, "model": "a", "reads": []},
        {"node": 1, "model": "b", "reads": []},
        {"node": 2, "model": "c", "reads": [0, 1]},
        {"node": 3, "model": "d", "reads": [2]},
    ]


def test_empty_and_failed_answers_are_quoted_as_empty():
    pool = ScriptedPool({"a": "", "b": ModelCallError("down"), "c": "the answer is C"})
    pool.engine.scripts["b"] = lambda call: ModelCallError("down")
    reply, _ = answer(pool, [(0, 2), (1, 2)])
    assert reply.text == "the answer is C" and reply.meta["nodes"][1]["failed"] == "down"
    prompt = next(c.prompt for c in pool.history if c.model == "c")
    assert "Answer 1:\n<quote>\n\n</quote>\nAnswer 2:\n<quote>\n\n</quote>" in prompt
    with pytest.raises(ModelCallError, match="down"):
        answer(pool, [(0, 1), (2, 1)])


def test_one_model_answers_as_itself_without_a_search():
    pool = ScriptedPool({"only": fallible})
    questions = example_questions(3)
    outcome = fit(pool, questions=questions)
    assert outcome.calls["fit"] == 0 and {c.prompt for c in pool.history} == {q.text() for q in questions}
    assert outcome.texts == {q.id: fallible(c) for q, c in zip(questions, pool.history, strict=True)}


def test_messages_are_short_and_the_answer_is_as_long_as_the_run_says():
    pool = ScriptedPool(dict.fromkeys("ab", "x"))
    answer(pool, [(0, 1)], sampling=Sampling(max_new_tokens=900), max_message_tokens=50)
    assert {c.model: c.params["max_new_tokens"] for c in pool.history} == {"a": 50, "b": 900}


def test_long_answers_share_the_room_and_the_question_is_never_cut():
    long = "word " * 3000 + "the answer is A"
    pool = ScriptedPool(dict.fromkeys("abc", long), fields={name: {"context_length": 200} for name in "abc"})
    reply, _ = answer(pool, [(0, 2), (1, 2)])
    prompt = next(c.prompt for c in pool.history if quotes(c))
    assert prompt.startswith(QUESTION.text()) and prompt.endswith(QUESTION.answer_format) and reply.meta["quotes_cut"]
    assert len(prompt.split()) <= 200 - 64 and prompt.count("... ") == 2


@pytest.mark.parametrize("size", [2, 5, 16, 32])
def test_any_number_of_models_is_searched_and_drawn(size):
    pool = ScriptedPool({f"m{i}": fallible for i in range(size)})
    outcome = fit(pool, dev=examples(2, prefix="d"), population=2, max_iterations=1)
    assert len(outcome.state["edges"]) == size - 1
    assert (
        outcome.state["facts"]["dot"].count(" -> ") == size - 1 and outcome.state["facts"]["dot"].count("label") == size
    )
    assert len(outcome.replies["q"].meta["nodes"]) == size == outcome.calls_per_question["q"]


def test_questions_of_one_depth_share_batches():
    """Sixty questions over a chain of five: about five times the batches of one model that is asked sixty questions."""
    questions = [attrs.evolve(QUESTION, id=f"q{i}", prompt=f"Letter {i}?") for i in range(60)]
    batches = {}
    for name, edges in (("chain", [(0, 1), (1, 2), (2, 3), (3, 4)]), ("star", [(0, 4), (1, 4), (2, 4), (3, 4)])):
        pool = ScriptedPool(dict.fromkeys("abcde", "the answer is A"))
        system = system_of(pool, edges)

        async def run(system=system):
            async with open_state(sampling=GREEDY) as state:
                await asyncio.gather(*(system.respond(q, state.context("respond", q)) for q in questions))

        asyncio.run(run())
        batches[name] = len(pool.engine.batches)
    assert batches == {"chain": 5, "star": 5}


@pytest.mark.parametrize("options", [{}, {"dev_ratio": 0.5}, {"check_dev": True}, {"num_assignments": 2}])
def test_fitting_makes_at_most_the_calls_it_predicts(options):
    """A utility that always improves and never repeats leaves nothing to save but equal systems."""
    method = HeterogeneousSwarms(build(Options, {"population": 3, "max_iterations": 2, "patience": 9, **options}))
    for pool, metric in (
        (MergeablePool("abcd", near), Utility(NoOptions())),
        (ScriptedPool(dict.fromkeys("abcd", fallible)), None),
    ):
        predicted = method.cost_on(pool.pool, 4, GREEDY)
        made = run_method(method, pool, dev=examples(4), questions=[QUESTION], metric=metric, sampling=GREEDY)
        assert 0 < made.calls["fit"] <= predicted.fit and made.calls["respond"] == predicted.respond == 4
    assert method.cost_on(ScriptedPool(dict.fromkeys("abcd", fallible)).pool, 4, GREEDY).fit < method.cost(4, 4).fit


def test_distinct_systems_cost_exactly_what_is_predicted():
    """Two nodes, one move, no patience to save: two graphs twice, each of two calls per dev question, unless they are equal."""
    dev, pool = right_if_checked()
    method = HeterogeneousSwarms(Options(population=2, max_iterations=1))
    outcome = run_method(method, pool, dev=dev, sampling=GREEDY)
    decoded = {tuple(line["graphs"]) for line in outcome.state["facts"]["trace"]}
    systems = len({score for scores in decoded for score in scores})  # here a graph's score tells which one it is
    assert outcome.calls["fit"] == systems * 2 * len(dev) and method.cost(2, 3).fit == 2 * 3 * (2 + 10) * 2


def test_a_single_model_that_does_better_is_told():
    dev = examples(3, prefix="d")
    right = {
        e.question.text(): f"the answer is {e.references[0] if e.answer is None else e.question.letters[e.answer]}"
        for e in dev
    }
    pool = ScriptedPool({"a": lambda c: right.get(c.prompt, "no"), "b": "no"})
    outcome = fit(pool, dev=dev, population=2, max_iterations=1, check_dev=True)
    assert outcome.warnings == [
        "heterogeneous_swarms: on dev, the best graph scores 0.000 and the best single model (a) 1.000"
    ]
    assert outcome.state["facts"]["c_gain"] == -0.5


def test_bad_input_is_told_in_one_line():
    pool = ScriptedPool(dict.fromkeys("ab", fallible))
    with pytest.raises(ConfigError, match="there are no dev examples"):
        fit(pool, dev=[])
    with pytest.raises(ConfigError, match="population: expected int >= 2 and <= 50, got 1"):
        build(Options, {"population": 1})
    with pytest.raises(ConfigError, match="max_iterations: expected int >= 1, got 0"):
        build(Options, {"max_iterations": 0})
    unscored = [Example(question=Question(id="d", prompt="?"))]

    class Silent(LastWord):
        def score(self, example, reply, context):
            return attrs.evolve(super().score(example, reply, context), value=None)

    with pytest.raises(ConfigError, match="the metric scored no dev example"):
        fit(pool, dev=unscored, metric=Silent(NoOptions()), population=2, max_iterations=1)
