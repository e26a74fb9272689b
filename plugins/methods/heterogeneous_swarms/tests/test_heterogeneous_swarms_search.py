"""The search for a graph on dev: what is found, when it stops, what decides it."""

from __future__ import annotations

import asyncio
import json

import pytest
from swarm_searches import GREEDY, fit, right_if_checked

from moco_method_heterogeneous_swarms.options import Options
from moco_toolkit_authoring import ScriptedPool, examples, fallible, open_state


@pytest.mark.parametrize("order", [("checker", "expert"), ("expert", "checker")])
def test_the_only_order_that_works_is_found(order):
    dev, pool = right_if_checked(order=order)
    outcome = fit(pool, dev=dev, population=4, max_iterations=6)
    e, c = order.index("expert"), order.index("checker")
    assert outcome.state["edges"] == [[e, c]] and outcome.state["facts"]["dev_score"] == 1.0
    assert outcome.replies["q"].text == "the answer is R" and outcome.replies["q"].meta["model"] == "checker"
    assert outcome.state["facts"]["dot"].splitlines() == [
        "digraph {",
        f'  0 [label="0: {order[0]}"{", peripheries=2" if c == 0 else ""}];',
        f'  1 [label="1: {order[1]}"{", peripheries=2" if c == 1 else ""}];',
        f"  {e} -> {c};",
        "}",
    ]
    assert outcome.noted("graph") == outcome.state["facts"]["dot"]


def test_the_stored_graph_scores_on_dev_what_was_recorded():
    dev, systems = examples(12, prefix="d"), []
    fit(
        ScriptedPool(dict.fromkeys("abcd", fallible)), dev=dev, population=4, max_iterations=3, after_fit=systems.append
    )
    (system,) = systems

    async def again():
        async with open_state(sampling=GREEDY) as state:
            scores = []
            for example in dev:
                context = state.context("fit", None).on(example.question)
                scores.append((await context.grade(example, await system.respond(example.question, context))).value)
            return sum(scores) / len(scores)

    assert asyncio.run(again()) == system.facts["dev_score"]


def test_the_best_score_never_falls_and_the_trace_holds_every_iteration():
    facts = fit(ScriptedPool(dict.fromkeys("abcde", fallible)), population=5, max_iterations=5, patience=9).state[
        "facts"
    ]
    assert [line["iteration"] for line in facts["trace"]] == list(range(6))
    bests = [line["best"] for line in facts["trace"]]
    assert bests == sorted(bests) and bests[-1] == facts["dev_score"] == max(
        s for t in facts["trace"] for s in t["graphs"]
    )
    assert [t["step_length"] for t in facts["trace"][:3]] == pytest.approx([0, 0.5, 0.5 * 0.95])


@pytest.mark.parametrize("patience", [1, 3])
def test_constant_scores_stop_after_patience_iterations(patience):
    outcome = fit(ScriptedPool(dict.fromkeys("ab", "the answer is nothing")), population=2, patience=patience)
    assert len(outcome.state["facts"]["trace"]) == 1 + patience


def test_a_stuck_particle_waits_as_long_as_the_paper_says():
    """A history of h scores whose best is the first one restarts once h >= 0.67 * 6 = 4.02: after four rounds."""
    settings = Options().settings(0)
    assert (settings.restart_patience, settings.cooldown, settings.patience) == (4, 4, 6)
    assert Options(restart_patience=0.1, patience=2).settings(0).restart_patience == 1


def test_identical_models_score_alike_in_any_graph_and_the_first_is_kept():
    facts = fit(ScriptedPool.copies(4, "the answer is X"), population=3, max_iterations=9, patience=2).state["facts"]
    assert {s for line in facts["trace"] for s in line["graphs"]} == {0.0} and len(facts["trace"]) == 3


def test_the_trace_does_not_depend_on_concurrency_and_every_seed_reaches_it():
    def trace(**keywords):
        pool = ScriptedPool(dict.fromkeys("abcd", fallible))
        return fit(pool, population=3, max_iterations=2, **keywords).state

    assert trace(in_flight=1) == trace(in_flight=64) != trace(seed=1)
    assert trace(decode_top_p=0.9) != trace(decode_top_p=0.9, seed=1)

    def edges(**keywords):
        pool = ScriptedPool(dict.fromkeys("abcde", "the answer is X"))
        return fit(pool, population=2, max_iterations=1, **keywords).state["edges"]

    assert len({json.dumps(edges(seed=s)) for s in range(6)}) > 1
    assert len({json.dumps(edges(seed=0, decode_top_p=0.0)), json.dumps(edges())}) == 1
