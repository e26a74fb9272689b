"""From a matrix to a graph, and what models add to it: by hand, and by frequencies."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import networkx
import pytest
from scipy.stats import chisquare

from moco_method_heterogeneous_swarms.decode import c_gain, decode, draw_assignments, jfk


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
