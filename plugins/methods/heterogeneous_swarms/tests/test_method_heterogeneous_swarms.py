"""Heterogeneous Swarms: decoding by hand and against networkx, the search on scripted models, what is stored and replayed."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import Counter

import attrs
import networkx
import pytest
from scipy.stats import chisquare

from moco_core import ConfigError, Example, ModelCallError, Question, Sampling
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_method_heterogeneous_swarms.decode import c_gain, decode, draw_assignments, jfk
from moco_method_heterogeneous_swarms.method import HeterogeneousSwarms
from moco_method_heterogeneous_swarms.options import Options
from moco_toolkit_authoring import (
    LastWord,
    ScriptedPool,
    example_questions,
    examples,
    fallible,
    method_checks,
    open_session,
    run_method,
)
from moco_toolkit_merging.testing import MergeablePool, Utility

WANTED = {"a": 0.6, "b": 0.3, "c": 0.3, "d": -0.2}


def near(m):
    return -sum((m.share(n) - w) ** 2 for n, w in WANTED.items())


test_conformance = method_checks(
    "heterogeneous_swarms",
    settings=[
        {"population": 3, "max_iterations": 2},
        {"population": 2, "max_iterations": 1, "decode_top_p": 0.7, "check_dev": True, "dev_ratio": 0.5},
    ],
    pool=lambda: ScriptedPool(dict.fromkeys(["m0", "m1", "m2"], fallible)),
)
test_conformance_with_weights = method_checks(
    "heterogeneous_swarms",
    settings=[{"population": 2, "num_assignments": 3, "max_iterations": 2, "weight_step": "on"}],
    pool=lambda: MergeablePool("abcd", near),
    metric=Utility(NoOptions()),
)

GREEDY = Sampling(temperature=0.0, max_new_tokens=64)
QUESTION = Question(id="q", prompt="Which letter?", answer_format="End with: The answer is X.")


def fit(
    pool, *, dev=None, metric=None, questions=(QUESTION,), seed=0, cache=None, after_fit=None, in_flight=256, **options
):
    method = HeterogeneousSwarms(build(Options, options))
    return run_method(
        method,
        pool,
        dev=examples(4, prefix="d") if dev is None else dev,
        questions=list(questions),
        metric=metric,
        sampling=GREEDY,
        reload_with=method,
        seed=seed,
        cache=cache,
        after_fit=after_fit,
        in_flight=in_flight,
    )


def weighted(pool=None, **keywords):
    given = {"population": 3, "num_assignments": 4, "max_iterations": 4, **keywords}
    return fit(pool or MergeablePool("abcd", near), metric=Utility(NoOptions()), **given)


# ---------------------------------------------------------------- decoding a matrix


def flat(rows):
    return tuple(x for row in rows for x in row)


def test_a_positive_matrix_decodes_to_the_graph_worked_out_by_hand():
    """Row sums 0.9, 0.5, 1.2, 0.8: node 1 is the sink. Then 2 (reads to 1), 0 (row: 1 has 0.2, 2 has 0.6), 3 (1: 0.3, 2: 0.1,
    0: 0.4)."""
    rows = [[0, 0.2, 0.6, 0.1], [0.1, 0, 0.2, 0.2], [0.5, 0.3, 0, 0.4], [0.4, 0.3, 0.1, 0]]
    before = json.dumps(rows)
    assert decode(flat(rows), 4, 0.0, random.Random(0)) == ((0, 2), (2, 1), (3, 0))
    assert json.dumps(rows) == before


def test_every_decoded_graph_is_a_tree_with_one_sink():
    rng = random.Random(3)
    for trial in range(1000):
        nodes = rng.randint(1, 7)
        low = rng.choice([0.0, -1.0, -3.0])
        scale = rng.choice([0.0, 1.0, 1e-310, 1e6])
        matrix = tuple(scale * rng.uniform(low, 1.0) for _ in range(nodes * nodes))
        edges = decode(matrix, nodes, rng.choice([0.0, 0.7, 0.999]), random.Random(trial))
        graph = networkx.DiGraph()
        graph.add_nodes_from(range(nodes))
        graph.add_edges_from(edges)
        assert networkx.is_directed_acyclic_graph(graph) and graph.number_of_edges() == len(edges) == nodes - 1
        assert [n for n in graph if graph.out_degree(n) == 0] == [next(n for n in graph if not graph.out_degree(n))]
        assert nodes == 1 or networkx.is_weakly_connected(graph)


def test_rows_of_nothing_share_the_chance_of_the_sink_and_negative_entries_count_as_nothing():
    rows = [[0, 0.5, 0.5], [-9, 0, -1], [0, 0, 0]]
    sinks = Counter(
        next(v for _, v in edges if v not in {u for u, _ in edges})
        for edges in (decode(flat(rows), 3, 0.9, random.Random(i)) for i in range(400))
    )
    assert set(sinks) == {1, 2} and abs(sinks[1] - 200) < 60
    assert decode(flat(rows), 3, 0.0, random.Random(0)) == ((0, 1), (2, 0))  # ties go to the lowest node


def shares(logits):
    total = math.fsum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def test_the_frequencies_of_a_wide_nucleus_are_the_products_of_the_softmaxes():
    rows = [[0, 0.9, 0.4], [0.3, 0, 0.8], [0.6, 0.5, 0]]
    sums = [sum(row) for row in rows]
    expected: Counter = Counter()
    for sink, p in enumerate(shares([1 / s for s in sums])):
        rest = [i for i in range(3) if i != sink]
        for u, q in zip(rest, shares([sums[i] for i in rest]), strict=True):
            (w,) = [i for i in rest if i != u]
            for v, r in zip(sorted([sink, u]), shares([rows[w][x] for x in sorted([sink, u])]), strict=True):
                expected[tuple(sorted([(u, sink), (w, v)]))] += p * q * r
    trials = 6000
    rng = random.Random(11)
    drawn = Counter(decode(flat(rows), 3, 1 - 1e-12, rng) for _ in range(trials))
    assert set(drawn) <= set(expected) and sum(expected.values()) == pytest.approx(1)
    graphs = sorted(expected)
    assert chisquare([drawn[g] for g in graphs], [trials * expected[g] for g in graphs]).pvalue > 0.001


# ---------------------------------------------------------------- JFK and assignments


def test_jfk_by_hand():
    assert jfk([(0, 0, 1), (1, 2, 2)], [1.0, 0.25], 4) == [1.0, (1.0 + 0.25) / 2, 0.25, None]
    assert jfk([(0, 1), (1, 0)], [0.5, 0.5], 2) == [0.5, 0.5]
    drawn = draw_assignments(20, 4, 4, random.Random(0))
    scores = jfk(drawn, [list(a).count(1) / 4 for a in drawn], 4)
    assert max(range(4), key=lambda i: scores[i]) == 1


def test_every_model_is_assigned_where_there_are_places():
    for seed in range(200):
        drawn = draw_assignments(3, 4, 9, random.Random(seed))
        assert {model for assignment in drawn for model in assignment} == set(range(9))
        assert [len(assignment) for assignment in drawn] == [4, 4, 4]
        assert len({m for a in draw_assignments(1, 3, 5, random.Random(seed)) for m in a}) == 3
    counts = Counter(m for seed in range(500) for a in draw_assignments(5, 4, 4, random.Random(seed)) for m in a)
    assert chisquare([counts[m] for m in range(4)]).pvalue > 0.001


def test_the_gain_by_hand():
    """Four questions, two models: solved by none, one, one, both; the system solves the second and the last."""
    singles = [[0, 1, 0, 1], [0, 0, 1, 1]]
    # by buckets: 1/4 (0 - 0) + 2/4 (1/2 - 1/2) + 1/4 (1 - 1) = 0; solving all of them gains 1/4 + 2/4 * 1/2
    assert c_gain([0, 1, 0, 1], singles) == 0.0 and c_gain([1, 1, 1, 1], singles) == 0.5
    assert c_gain([], [[], []]) == 0.0


# ---------------------------------------------------------------- the search


def quotes(call):
    return call.prompt.count("<quote>")


def expert(call):
    return "the answer is E"


def checker(call):
    return "the answer is R" if "the answer is E" in call.prompt else "the answer is W"


def right_if_checked(size=2, *, order=("checker", "expert")):
    """Only the checker after the expert answers right."""
    dev = [
        Example(question=attrs.evolve(QUESTION, id=f"d{i}", prompt=f"Letter {i}?"), references=("r",)) for i in range(3)
    ]
    return dev, ScriptedPool({name: {"expert": expert, "checker": checker}[name] for name in order})


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
        async with open_session(sampling=GREEDY) as session:
            scores = []
            for example in dev:
                context = session.context("fit", None).on(example.question)
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


# ---------------------------------------------------------------- weights


def test_models_move_through_the_recipes_of_merging():
    outcome = weighted()
    trace = outcome.state["facts"]["trace"]
    assert len(outcome.state["merges"]) == 4 and outcome.state["assignment"]
    assert outcome.state["facts"]["dev_score"] > max(near(m) for m in map(alone, "abcd"))
    # the sink alone decides what these models say: a graph scores as its sink, an assignment as the model it puts there
    first = trace[0]
    assert all(
        any(score == pytest.approx(near(alone(n))) for n in "abcd") for score in first["graphs"] + first["assignments"]
    )
    assert float(outcome.texts["q"]) == outcome.state["facts"]["dev_score"]
    for line in trace:
        assert len(line["assignments"]) == 4 and len(line["jfk"]) == 4


def alone(name):
    from moco_toolkit_merging.testing import Merged

    return Merged(coefficients={name: 1.0})


def test_positions_sum_to_one_and_the_first_models_are_the_pools_own():
    pool = MergeablePool("abcd", near)
    outcome = weighted(pool)
    for merge in outcome.state["merges"]:
        assert sum(merge["operation"]["coefficients"]) == pytest.approx(1)
    assert {c.model for c in pool.history} >= set("abcd")


def test_adapters_of_one_base_move_as_adapters():
    pool = MergeablePool("abcd", near, adapter=True, base="root")
    assert {m["composition"] for m in weighted(pool).state["merges"]} == {"factors"}


def test_weights_stay_where_they_cannot_be_merged_and_the_log_says_why():
    pool = MergeablePool("ab", near, fields={"b": {"architecture": "other"}})
    outcome = weighted(pool)
    assert outcome.state["merges"] == [] and "do not share an architecture" in outcome.noted("weight_step")
    off = weighted(weight_step="off")
    assert off.state["merges"] == [] and off.noted("weight_step") == "off: weight_step is off"
    problems = HeterogeneousSwarms(Options(weight_step="on")).needs().problems(pool.pool)
    assert "do not share an architecture" in problems[0]


def test_a_killed_search_continues_from_the_cache():
    cache, calls = Cache(None), []

    def failing(m):
        calls.append(m)
        if len(calls) == 4 + 6:  # the four models are scored when the pool is made
            raise RuntimeError("killed")
        return near(m)

    with pytest.raises(Exception, match="killed"):
        weighted(MergeablePool("abcd", failing), cache=cache)
    pool, whole = MergeablePool("abcd", near), MergeablePool("abcd", near)
    resumed, uninterrupted = weighted(pool, cache=cache), weighted(whole)
    assert resumed.state == uninterrupted.state and resumed.texts == uninterrupted.texts
    assert len(pool.history) < len(whole.history)


def test_a_saved_system_is_read_and_saved_alike_and_refuses_changed_models():
    outcome = weighted()
    state = json.loads(json.dumps(outcome.state))
    method = HeterogeneousSwarms(Options())
    assert json.loads(json.dumps(method.restore(MergeablePool("abcd", near).pool, state, None).state())) == state
    changed = MergeablePool("abcd", near, fields={"b": {"fingerprint": "new"}}).pool
    with pytest.raises(ConfigError, match="model 'b' has changed since the system was fitted"):
        method.restore(changed, state, None)
    plain = fit(ScriptedPool(dict.fromkeys("abc", fallible)), population=2, max_iterations=1).state
    with pytest.raises(ConfigError, match="fitted on a pool of 3 models or more, this one has 2"):
        method.restore(ScriptedPool(dict.fromkeys("ab", fallible)).pool, plain, None)


# ---------------------------------------------------------------- answering


def system_of(pool, edges, **options):
    state = {"edges": edges, "assignment": list(range(len(pool.pool))), "merges": [], "facts": {}}
    return HeterogeneousSwarms(build(Options, options)).restore(pool.pool, state, None)


def answer(pool, edges, question=QUESTION, sampling=GREEDY, **options):
    system = system_of(pool, edges, **options)

    async def run():
        async with open_session(sampling=sampling) as session:
            context = session.context("respond", question)
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
            async with open_session(sampling=GREEDY) as session:
                await asyncio.gather(*(system.respond(q, session.context("respond", q)) for q in questions))

        asyncio.run(run())
        batches[name] = len(pool.engine.batches)
    assert batches == {"chain": 5, "star": 5}


# ---------------------------------------------------------------- what it costs, bad input


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
