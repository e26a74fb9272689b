"""Graphs against networkx, roles, and what a discussion does with members that share a model."""

from __future__ import annotations

import asyncio
import random

import networkx
import pytest

from moco_core import ConfigError, Message, PromptTooLong, Question
from moco_toolkit_authoring import ScriptedPool, open_state
from moco_toolkit_discussion import (
    Talk,
    distances,
    dot,
    from_edges,
    from_matrix,
    in_role,
    layers,
    model_problems,
    refine,
    sources,
    topological_order,
)

QUESTION = Question(id="q", prompt="Which letter?", answer_format="End with: the answer is X.")


def drawn(seed: int, nodes: int = 7, acyclic: bool = False) -> tuple[networkx.DiGraph, tuple[tuple[int, ...], ...]]:
    rng = random.Random(seed)
    edges = [(i, j) for i in range(nodes) for j in range(nodes) if i != j and rng.random() < 0.3]
    place = rng.sample(range(nodes), nodes)
    edges = [(i, j) for i, j in edges if not acyclic or place[i] < place[j]]
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(edges)
    return graph, from_edges(nodes, edges)


@pytest.mark.parametrize("seed", range(20))
def test_distances_are_those_of_networkx(seed):
    graph, adjacency = drawn(seed)
    for node in graph:
        expected = networkx.single_target_shortest_path_length(graph, node)
        assert distances(adjacency, node) == [dict(expected).get(i) for i in graph]
        assert sources(adjacency, node) == sorted(graph.predecessors(node))
    assert from_matrix(7, networkx.to_numpy_array(graph, dtype=int).tolist()) == adjacency


@pytest.mark.parametrize("seed", range(20))
def test_layers_are_those_of_networkx(seed):
    graph, adjacency = drawn(seed, acyclic=True)
    assert layers(adjacency) == [sorted(layer) for layer in networkx.topological_generations(graph)]
    place = {node: at for at, node in enumerate(topological_order(adjacency))}
    assert len(place) == len(graph) and all(place[i] < place[j] for i, j in graph.edges)


def test_a_cycle_has_no_layers():
    with pytest.raises(ValueError, match="cycle"):
        layers(from_edges(3, [(0, 1), (1, 2), (2, 1)]))


def test_a_picture_by_hand():
    graph = from_edges(3, [(0, 1), (1, 0), (1, 2)])
    assert dot(graph, ["a", 'b "x"', "c\\"], output=2).splitlines() == [
        "digraph {",
        '  0 [label="a"];',
        '  1 [label="b \\"x\\""];',
        '  2 [label="c\\\\", peripheries=2];',
        "  0 -> 1 [dir=both];",
        "  1 -> 2;",
        "}",
    ]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0, 1]], "expected a 2 x 2 matrix, one row per node; got 1 rows of 2 entries"),
        ([[0, 1], [0]], "got 2 rows of 1/2 entries"),
        ([[0, 2], [0, 0]], r"adjacency\[0\]\[1\]: expected 0 or 1, got 2"),
        ([[0, 1], [0, 1]], "node 1 reads itself"),
    ],
)
def test_what_is_no_adjacency_is_refused_in_one_line(matrix, message):
    with pytest.raises(ConfigError, match=message):
        from_matrix(2, matrix)


@pytest.mark.parametrize("edge", [(0, 2), (-1, 0), (0, 1, 1)])
def test_an_edge_outside_the_graph_is_refused(edge):
    with pytest.raises(ConfigError, match=r"edges\[1\]: .* is no edge between two of the nodes 0 to 1"):
        from_edges(2, [(0, 1), edge])


def test_a_role_joins_the_system_message():
    user = Message("user", "Hi.")
    assert in_role([user], " ") == (user,)
    assert in_role([user], "You are a critic.") == (Message("system", "You are a critic."), user)
    assert (
        in_role([Message("system", "Be brief."), user], "You are a critic.")[0].content
        == "Be brief.\n\nYou are a critic."
    )


def test_a_name_that_is_no_model_is_told_with_the_nearest():
    pool = ScriptedPool({"alpha": "", "beta": ""}).pool
    assert model_problems(pool, ["alpha", 1], "critic") == []
    (problem,) = model_problems(pool, ["alfa"], "critic")
    assert problem.startswith("critic: no model 'alfa'") and problem.endswith("did you mean 'alpha'?")


def held(members: list[str], script, work, **fields):
    """Run ``work`` on a discussion of models named ``members``, names twice sitting twice."""
    source = ScriptedPool(dict.fromkeys(sorted(set(members)), script), fields=fields)

    async def run():
        async with open_state() as state:
            context = state.context("respond", QUESTION)
            models = [source.pool.named(name) for name in members]
            talk = Talk(members=models, question=QUESTION, context=context, sampling=context.sampling)
            await work(talk)
            return talk

    return asyncio.run(run()), source


def test_places_of_one_model_draw_independent_replies():
    async def work(talk):
        await talk.open()
        await talk.round({i: refine(talk.question, talk.said[i], []) for i in range(3)})

    talk, source = held(["a", "b", "a"], lambda call: f"the answer is {call.seed}", work)
    first, second = ([a.key for a in row] for row in talk.answers)
    assert len(set(first)) == len(set(second)) == 3 and len({call.seed for call in source.history}) == 6
    assert [talk.sample(i, 2) for i in range(3)] == [4, 2, 5]
    assert sorted(talk.order(0, 1)) == [1, 2] and sorted(talk.order(None, 1)) == [0, 1, 2]


def test_numbers_of_others_may_be_given():
    sheet = refine(QUESTION, "mine", ["x", "y"], numbers=[4, 7])
    assert "Your own answer:\n<quote>\nmine" in sheet.whole
    assert "Answer 4:\n<quote>\nx" in sheet.whole and "Answer 7:\n<quote>\ny" in sheet.whole


def test_a_round_without_room_for_anybody_is_an_error_that_says_the_numbers():
    async def work(talk):
        await talk.open()
        await talk.round({i: refine(talk.question, talk.said[i], [talk.said[1 - i]]) for i in range(2)})

    fields = {name: {"context_length": 120} for name in "ab"}
    with pytest.raises(
        PromptTooLong, match=r"context of 120 tokens, 64 are for the reply and about .* for 2 quotes \(at least 8"
    ):
        held(["a", "b"], lambda call: "word " * 50 + "the answer is A", work, **fields)
    fields["b"]["context_length"] = 1000
    talk, _ = held(["a", "b"], lambda call: "word " * 50 + "the answer is A", work, **fields)
    (kept,) = talk.record()["kept"]
    assert kept["model"] == "a" and "context of 120 tokens" in kept["reason"]
