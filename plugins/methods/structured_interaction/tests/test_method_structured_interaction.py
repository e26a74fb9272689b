"""Structured interaction: graphs against networkx, who hears whom, whose word counts, what it costs, on scripted models."""

from __future__ import annotations

import json
import random
import re

import networkx
import numpy
import pytest

from moco_core import ConfigError, Example, ModelCallError, Question, build, plain
from moco_method_structured_interaction.method import StructuredInteraction
from moco_method_structured_interaction.options import Options
from moco_method_structured_interaction.relcom import MEMORY_WORDS, Fields, parse
from moco_method_structured_interaction.topologies import layered, named, random_graph
from moco_toolkit_authoring import ScriptedPool, method_checks, run_method
from moco_toolkit_discussion import distances, from_matrix

test_conformance = method_checks(
    "structured_interaction",
    settings=[
        {},
        {"topology": "random", "output": "best_node", "dev_sample": 3, "rounds": 1, "format": "relcom"},
        {"placement": "search", "search_topologies": ["layered", "star"], "dev_sample": 2, "rounds": 1},
        {"topology": "wheel", "output": "summarizer", "placement": "by_dev", "labels": "shuffled"},
        {"topology": "custom", "edges": [[0, 1], [1, 2], [2, 0]], "output": "vote", "stop": "fixed_point"},
    ],
)

QUESTION = Question(id="q", prompt="Which letter?", answer_format="End with: the answer is X.")
QUOTE = re.compile(r"(Your own answer|Your memory|Answer \d+|Reason \d+):\n<quote>\n(.*?)\n</quote>", re.DOTALL)
DEV = [Example(question=Question(id=f"d{i}", prompt=f"dev <{i}>"), references=("a",)) for i in range(4)]


def read(call) -> dict[str, str]:
    """What a call quotes, by label."""
    return dict(QUOTE.findall(call.prompt))


def neighbours(call) -> list[str]:
    return [text for label, text in read(call).items() if label.startswith("Answer")]


def discuss(pool, dev=(), question=QUESTION, **options):
    return run_method(StructuredInteraction(Options(**options)), pool, questions=[question], dev=dev).reply


def telling(call):
    return f"{call.model} says: the answer is {call.model}"


def gathering(call):
    """Name all models that were ever heard of: those in every quote, and this one."""
    known = set(re.findall(r"m\d+", " ".join(read(call).values()))) | {call.model}
    return f"the answer is {''.join(sorted(known, key=lambda name: int(name[1:])))}"


def undirected(graph) -> networkx.Graph:
    return networkx.from_numpy_array(numpy.array(graph))


# ---------------------------------------------------------------- graphs


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 9, 16])
def test_topologies_are_those_of_networkx(n):
    expected = {
        "chain": networkx.path_graph(n),
        "cycle": networkx.cycle_graph(n) if n >= 3 else networkx.path_graph(n),
        "star": networkx.star_graph(n - 1),
        "wheel": networkx.wheel_graph(n) if n >= 4 else networkx.complete_graph(n),
        "complete": networkx.complete_graph(n),
        "tree": networkx.full_rary_tree(2, n),
    }
    for topology, graph in expected.items():
        found = named(topology, n)
        assert set(undirected(found).edges) == {tuple(sorted(edge)) for edge in graph.edges}, topology
        assert all(found[i][i] == 0 and found[i][j] == found[j][i] for i in range(n) for j in range(n))


def test_edge_counts_by_hand():
    counts = {t: sum(map(sum, named(t, 6))) // 2 for t in ("chain", "tree", "star", "cycle", "wheel", "complete")}
    assert counts == {"chain": 5, "tree": 5, "star": 5, "cycle": 6, "wheel": 10, "complete": 15}
    assert named("wheel", 4) == named("complete", 4) and named("star", 4) != named("complete", 4)


def test_layers_feed_the_next_layer_only():
    assert layered([2, 1, 2]) == (
        (0, 0, 1, 0, 0),
        (0, 0, 1, 0, 0),
        (0, 0, 0, 1, 1),
        (0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0),
    )


@pytest.mark.parametrize("seed", range(10))
def test_random_graphs_are_connected_and_as_dense_as_they_should_be(seed):
    loose = random_graph(8, random.Random(seed), probability=0.3, degree=None)
    regular = random_graph(8, random.Random(seed), probability=0.3, degree=3)
    assert networkx.is_connected(undirected(loose)) and networkx.is_connected(undirected(regular))
    assert {degree for _, degree in undirected(regular).degree} == {3}
    assert loose == random_graph(8, random.Random(seed), probability=0.3, degree=None)


def test_what_cannot_be_connected_is_told():
    with pytest.raises(ConfigError, match=r"no connected random graph of 6 nodes with edge_probability=0\.001"):
        random_graph(6, random.Random(0), probability=0.001, degree=None)


# ---------------------------------------------------------------- who hears whom


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
@pytest.mark.parametrize("topology", ["chain", "tree", "star", "cycle", "layered", "directed chain"])
def test_after_r_rounds_a_node_knows_what_is_at_most_r_steps_away(topology, rounds):
    n = 7
    options = {"topology": topology, "layers": (2, 2, 2, 1) if topology == "layered" else None}
    if topology == "directed chain":
        options = {"topology": "custom", "edges": tuple((i, i + 1) for i in range(n - 1))}
    pool = ScriptedPool({f"m{i}": gathering for i in range(n)})
    reply = discuss(pool, rounds=rounds, output="vote", **options)
    graph = networkx.from_numpy_array(
        numpy.array(Options(**options).fixed(options["topology"], n)), create_using=networkx.DiGraph
    )
    for node, key in enumerate(reply.meta["answers"][-1]):
        steps = networkx.single_target_shortest_path_length(graph, node)
        assert key == "".join(f"m{i}" for i, far in sorted(dict(steps).items()) if far <= rounds)


def test_rounds_are_synchronous():
    pool = ScriptedPool({name: lambda c: neighbours(c)[0] if neighbours(c) else telling(c) for name in "ab"})
    reply = discuss(pool, topology="chain", rounds=3, output="vote")
    assert reply.meta["answers"] == [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]]


def test_a_node_reads_its_neighbours_by_the_number_of_their_node_and_itself():
    pool = ScriptedPool(dict.fromkeys("abcd", telling))
    discuss(pool, topology="star", rounds=1, output="vote")
    seen = {call.model: read(call) for call in pool.history[4:]}
    assert seen["a"] == {
        "Your own answer": telling(pool.history[0]),
        **{f"Answer {i}": f"{m} says: the answer is {m}" for i, m in ((2, "b"), (3, "c"), (4, "d"))},
    }
    for name in "bcd":
        assert set(seen[name]) == {"Your own answer", "Answer 1"} and seen[name]["Answer 1"].startswith("a says")
    assert all(c.prompt.startswith(QUESTION.text()) and c.prompt.endswith(QUESTION.answer_format) for c in pool.history)
    assert all(len(c.messages) == 1 for c in pool.history)


def test_who_reads_nobody_is_not_asked_again():
    pool = ScriptedPool({name: lambda c: f"{c.model}{len(pool.history)} the answer is {c.model}" for name in "abc"})
    reply = discuss(pool, topology="layered", layers=(2, 1), rounds=3, output="vote")
    assert [sum(c.model == m for c in pool.history) for m in "abc"] == [1, 1, 4]
    assert [row[:2] for row in reply.meta["answers"]] == [["a", "b"]] * 4


@pytest.mark.parametrize("options", [{"rounds": 0}, {"topology": "custom", "adjacency": ((0, 0), (0, 0)), "rounds": 5}])
def test_without_rounds_or_edges_nodes_answer_alone(options):
    pool = ScriptedPool(dict.fromkeys("ab", telling))
    reply = discuss(pool, output="vote", **options)
    assert len(pool.history) == 2 and {c.prompt for c in pool.history} == {QUESTION.text()}
    assert reply.text == "a says: the answer is a" and reply.meta["rounds"] == 0


def test_permuting_models_with_the_matrix_permutes_the_outputs():
    rng = random.Random(3)
    for _ in range(5):
        matrix = [[int(i != j and rng.random() < 0.4) for j in range(5)] for i in range(5)]
        place = rng.sample(range(5), 5)
        moved = [[matrix[place[i]][place[j]] for j in range(5)] for i in range(5)]
        names = [f"m{i}" for i in range(5)]
        run = lambda names, m: discuss(  # noqa: E731
            ScriptedPool(dict.fromkeys(names, gathering)),
            topology="custom",
            adjacency=tuple(map(tuple, m)),
            output="vote",
        ).meta["answers"]
        expected = [[row[p] for p in place] for row in run(names, matrix)]
        assert run([names[p] for p in place], moved) == expected


def test_one_model_may_sit_on_two_nodes():
    pool = ScriptedPool({name: lambda c: f"{c.model}{c.seed} the answer is {c.model}" for name in "ab"})
    reply = discuss(pool, nodes=("a", "b", "a"), topology="chain", rounds=1, output="sink")
    assert reply.meta["node"] == 2 and reply.meta["model"] == "a"
    first = [c for c in pool.history if not read(c)]
    assert [c.model for c in sorted(first, key=lambda c: c.model)] == ["a", "a", "b"]
    assert len({c.seed for c in first}) == 3  # two draws of one model
    (middle,) = [c for c in pool.history if c.model == "b" and read(c)]
    assert len(set(neighbours(middle))) == 2 and set(read(middle)) == {"Your own answer", "Answer 1", "Answer 3"}


def test_a_failed_or_empty_reply_keeps_the_last_one():
    def breaks(call):
        return telling(call) if not read(call) else "" if call.model == "a" else ModelCallError("down")

    reply = discuss(ScriptedPool({"a": breaks, "b": breaks, "c": telling}), rounds=1, output="vote")
    assert reply.meta["answers"] == [["a", "b", "c"]] * 2
    assert [(k["model"], k["reason"]) for k in reply.meta["kept"]] == [("a", "empty reply"), ("b", "down")]
    with pytest.raises(ModelCallError, match="down"):
        discuss(ScriptedPool(dict.fromkeys("ab", lambda c: ModelCallError("down"))), output="vote")


# ---------------------------------------------------------------- relcom


def relcom(call):
    return f"Reason: R-{call.model}\nAnswer: the answer is {call.model}\nMemory: M-{call.model}"


def test_neighbours_see_answer_and_reason_and_never_the_memory():
    pool = ScriptedPool(dict.fromkeys("abc", relcom))
    reply = discuss(pool, topology="chain", rounds=1, format="relcom", output="sink")
    assert reply.text == "the answer is c" and reply.meta["answers"] == [["a", "b", "c"]] * 2
    seen = {c.model: read(c) for c in pool.history[3:]}
    assert seen["a"] == {
        "Your own answer": "the answer is a",
        "Your memory": "M-a",
        "Answer 2": "the answer is b",
        "Reason 2": "R-b",
    }
    assert {"Reason 1", "Reason 3"} < set(seen["b"]) and "M-a" not in seen["b"].values()


def test_fields_out_of_order_make_the_whole_reply_an_answer_and_keep_the_memory():
    def script(call):
        return relcom(call) if not read(call) else "Answer: x\nReason: y\nMemory: z\nthe answer is Z"

    pool = ScriptedPool(dict.fromkeys("ab", script))
    reply = discuss(pool, rounds=2, format="relcom", output="vote")
    assert reply.meta["answers"] == [["a", "b"], ["z", "z"], ["z", "z"]]
    last = [read(c) for c in pool.history[4:]]
    assert [seen["Your memory"] for seen in last] == ["M-a", "M-b"] and not any(
        "Reason 1" in s or "Reason 2" in s for s in last
    )


def test_fields_by_hand():
    assert parse("So.\nReason: r\nAnswer: a\nb\n**Memory**: m\n n") == Fields("r", "a\nb", "m n")
    assert parse("Answer: a\nReason: r\nMemory: m") is None and parse("Reason: r\nAnswer: a") is None
    assert len(parse(f"Reason:\nAnswer:\nMemory: {'w ' * 300}").memory.split()) == MEMORY_WORDS


# ---------------------------------------------------------------- whose word counts


def skilled(right: dict[str, int], after: dict[str, int] | None = None):
    """Models that get so many of four dev questions right alone, and so many once they have read others."""

    def script(call):
        found = re.search(r"dev <(\d)>", call.transcript)
        if not found:
            return telling(call)
        good = int(found[1]) < (after if after and read(call) else right)[call.model]
        return f"the answer is {'a' if good else 'b'}"

    return ScriptedPool(dict.fromkeys(right, script))


def test_the_best_node_alone_need_not_be_the_best_after_talking():
    right, after = {"a": 1, "b": 3, "c": 2}, {"a": 4, "b": 2, "c": 4}
    assert discuss(skilled(right, after), DEV, output="best").meta["model"] == "b"
    assert discuss(skilled(right, after), DEV, output="best_node").meta["model"] == "c"  # tied with a, better alone


def test_the_fit_log_tells_every_nodes_score_by_turn_and_the_joint_accuracy():
    outcome = run_method(
        StructuredInteraction(Options(output="best_node", rounds=1)),
        skilled({"a": 1, "b": 3}, {"a": 4, "b": 2}),
        dev=DEV,
    )
    assert outcome.noted("nodes_by_turn") == [[0.25, 0.75], [1.0, 0.5]] and outcome.noted("joint") == [0.5, 0.75]
    assert outcome.noted("graph").splitlines()[1] == '  0 [label="0: a", peripheries=2];'


def test_the_best_dev_model_becomes_the_hub():
    outcome = run_method(
        StructuredInteraction(Options(topology="star", placement="by_dev")), skilled({"a": 1, "b": 4, "c": 1}), dev=DEV
    )
    assert outcome.state["nodes"] == ["b", "a", "c"] and outcome.state["output"] == 0


def test_a_search_finds_the_graph_that_dev_likes():
    """Only a node that reads two others answers dev questions right: with the end as output, the layered graph wins."""

    def script(call):
        return f"the answer is {'a' if len(neighbours(call)) == 2 else 'b'}"

    pool = ScriptedPool(dict.fromkeys("xyz", script))
    options = Options(
        placement="search", search_topologies=("chain", "layered"), search_placements=2, output="sink", rounds=1
    )
    outcome = run_method(StructuredInteraction(options), pool, dev=DEV)
    assert outcome.state["graph"] == plain(layered((2, 1)))
    scores = [note["score"] for note in outcome.notes if "tried" in note]
    assert scores == [0.0, 0.0, 1.0, 1.0]


def test_an_output_node_that_cannot_be_read_hands_over_to_the_vote():
    pool = ScriptedPool({"a": "the answer is A", "b": "the answer is A", "c": "no idea"})
    reply = discuss(pool, output="sink", rounds=1)
    assert (reply.text, reply.meta["final"]) == ("the answer is A", "vote_after_unparsed_node")
    reply = discuss(ScriptedPool(dict.fromkeys("ab", "no idea")), output="sink", rounds=1)
    assert reply.meta["unparsed"] is True and reply.meta["model"] == "b"


def test_a_fixed_point_ends_the_rounds():
    pool = ScriptedPool(dict.fromkeys("ab", telling))
    assert discuss(pool, output="vote", rounds=9, stop="fixed_point").meta["rounds"] == 1

    def wordy(call):  # the same answer in other words until the third round
        number = 1 + int(read(call)["Your own answer"].split("#")[1][0]) if read(call) else 0
        return f"#{min(number, 3)} the answer is {call.model}"

    assert (
        discuss(ScriptedPool(dict.fromkeys("ab", wordy)), output="vote", rounds=9, stop="fixed_point").meta["rounds"]
        == 1
    )
    greedy = discuss(
        ScriptedPool(dict.fromkeys("ab", wordy)), output="vote", rounds=9, stop="fixed_point", temperature=0.0
    )
    assert greedy.meta["rounds"] == 4


# ---------------------------------------------------------------- cost, size, bad input


SEARCH = {
    "placement": "search",
    "search_topologies": ("chain", "layered"),
    "search_placements": 2,
    "output": "vote",
    "rounds": 1,
}


@pytest.mark.parametrize(
    ("options", "fit", "respond"),
    [
        ({"output": "vote"}, 0, 3 + 2 * 3),
        ({"output": "vote", "topology": "layered", "layers": (2, 1)}, 0, 3 + 2 * 1),
        ({}, 3 * 4, 3 + 2 * 3),
        ({"output": "summarizer", "rounds": 1}, 3 * 4, 3 + 3 + 1),
        ({"output": "best_node", "rounds": 1, "dev_sample": 2}, 3 * 4 + 6 * 2, 6),
        (SEARCH, 3 * 4 + 2 * (6 + 4) * 4, 6),
    ],
)
def test_it_makes_the_calls_it_predicts(options, fit, respond):
    pool = skilled({"a": 3, "b": 2, "c": 4})
    method = StructuredInteraction(Options(**options))
    outcome = run_method(method, pool, dev=DEV, questions=[QUESTION])
    assert outcome.calls["fit"] == method.cost(3, 4).fit == fit
    assert method.cost(3, 4).respond == respond
    if options.get("placement") != "search":  # a search may end with the cheaper graph
        assert outcome.calls_per_question["q"] == respond


@pytest.mark.parametrize("n", [1, 2, 5, 16, 32])
def test_pools_of_any_size_work(n):
    pool = ScriptedPool({f"m{i}": gathering for i in range(n)})
    method = StructuredInteraction(Options(topology="tree", rounds=2, output="vote"))
    outcome = run_method(method, pool, questions=[QUESTION])
    assert outcome.calls_per_question["q"] == method.cost(n, 0).respond == (1 if n == 1 else 3 * n)
    assert len(outcome.replies["q"].meta["answers"][0]) == n
    assert max(len(neighbours(c)) for c in pool.history) <= 3
    assert len(outcome.noted("graph").splitlines()) == 2 + n + (n - 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"topology": "custom", "adjacency": [[0, 1], [1, 0]]}, "adjacency: expected a 3 x 3 matrix"),
        ({"topology": "custom", "adjacency": [[0, 1, 0], [1, 0], [0, 0, 0]]}, "got 3 rows of 2/3 entries"),
        ({"topology": "custom", "edges": [[0, 0]]}, "edges[0]: node 0 reads itself"),
        ({"topology": "custom", "edges": [[0, 1]], "output": "sink"}, "sink: node 2 reads no other node (custom)"),
        ({"output": "sink", "sink": 3}, "sink: there is no node 3, the nodes are 0 to 2"),
        ({"topology": "layered", "layers": [1, 1]}, "layers: [1, 1] are 2 nodes, there are 3"),
        ({"topology": "random", "degree": 3}, "degree: no graph of 3 nodes has 3 edges at every node"),
        ({"nodes": ["a", "bee"]}, "nodes: no model 'bee' in the pool"),
        ({"nodes": []}, "nodes: there is none"),
    ],
)
def test_what_does_not_fit_the_pool_is_told_before_any_call(options, problem):
    needs = StructuredInteraction(build(Options, options)).needs()
    assert any(problem in line for line in needs.problems(ScriptedPool(dict.fromkeys("abc", telling)).pool))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"topology": "custom"}, "adjacency or from edges"),
        ({"topology": "star", "edges": [[0, 1]]}, "for topology: custom"),
        ({"output": "best", "sink": 1}, "sink is for output: sink"),
        ({"output": "summarizer", "format": "relcom"}, "output: summarizer reads plain answers"),
        ({"rounds": -1}, "rounds: expected int >= 0, got -1"),
        ({"topology": "ring"}, "topology"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, problem):
    with pytest.raises(ConfigError, match=problem):
        build(Options, options)


def test_dev_is_asked_for_where_it_is_needed():
    with pytest.raises(ConfigError, match="output: best need dev examples"):
        discuss(ScriptedPool(dict.fromkeys("ab", telling)))


def test_nodes_too_far_from_the_output_are_warned_of():
    pool = skilled({"a": 4, "b": 1, "c": 1, "d": 1})
    outcome = run_method(StructuredInteraction(Options(topology="chain", rounds=2)), pool, dev=DEV)
    (warning,) = outcome.warnings
    assert "1 of 4 nodes (d) cannot reach the output node 0 (a) within 2 rounds" in warning


def test_the_record_is_plain_data_and_a_saved_system_is_the_fitted_one():
    outcome = run_method(
        StructuredInteraction(Options(topology="tree")), skilled({"a": 1, "b": 2}), dev=DEV, questions=[QUESTION]
    )
    json.dumps(dict(outcome.replies["q"].meta))
    assert outcome.state == {"nodes": ["a", "b"], "graph": [[0, 1], [1, 0]], "output": 1, "skills": [0.25, 0.5]}
    again = StructuredInteraction(Options()).restore(skilled({"a": 1, "b": 2}).pool, outcome.state, None)
    assert plain(again.state()) == outcome.state and again.graph == from_matrix(2, [[0, 1], [1, 0]])
    assert distances(again.graph, 0) == [0, 1]
