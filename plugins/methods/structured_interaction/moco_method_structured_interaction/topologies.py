"""The built-in graphs. All but ``layered`` are symmetric; none has a node that reads itself.

Yu et al., "NetSafe: Exploring the Topological Safety of Multi-agent Networks", arXiv 2410.15686, whose code calls the wheel
a star.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, pairwise
from typing import Literal

from moco_core import ConfigError
from moco_toolkit_discussion import Adjacency, distances, from_edges

__all__ = ["BUILT_IN", "Topology", "layered", "named", "random_graph"]

Topology = Literal["chain", "cycle", "tree", "star", "wheel", "complete", "layered", "random", "custom"]
Edges = Iterable[tuple[int, int]]


def _chain(n: int) -> Edges:
    return pairwise(range(n))


def _ring(nodes: Sequence[int]) -> Edges:
    """The edges of a cycle over three nodes or more, of a chain over fewer."""
    closing = [(nodes[0], nodes[-1])] if len(nodes) >= 3 else []
    return [*pairwise(nodes), *closing]


def _cycle(n: int) -> Edges:
    return _ring(range(n))


def _tree(n: int) -> Edges:
    return [((i - 1) // 2, i) for i in range(1, n)]


def _star(n: int) -> Edges:
    return [(0, i) for i in range(1, n)]


def _wheel(n: int) -> Edges:
    return [*_star(n), *_ring(range(1, n))] if n else []


def _complete(n: int) -> Edges:
    return combinations(range(n), 2)


BUILT_IN: dict[str, Callable[[int], Edges]] = {
    "chain": _chain,
    "cycle": _cycle,
    "tree": _tree,
    "star": _star,
    "wheel": _wheel,
    "complete": _complete,
}
"""The undirected edges of every graph that its name and the number of its nodes decide."""


def named(topology: str, nodes: int) -> Adjacency:
    """Return one of :data:`BUILT_IN` over so many nodes."""
    return _both_ways(nodes, BUILT_IN[topology](nodes))


def layered(sizes: Sequence[int]) -> Adjacency:
    """Return the graph in which every node of a layer reads the whole layer before; directed."""
    starts = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    blocks = [range(a, b) for a, b in pairwise(starts)]
    return from_edges(starts[-1], [(i, j) for above, below in pairwise(blocks) for i in above for j in below])


def random_graph(nodes: int, rng: random.Random, *, probability: float, degree: int | None) -> Adjacency:
    """Return a connected random graph: Erdős–Rényi with an edge ``probability``, or regular with a ``degree``.

    Drawn again until it is connected. Raises ConfigError if that does not happen in 10,000 draws.
    """
    for _ in range(10_000):
        edges = _drawn(nodes, rng, probability) if degree is None else _regular(nodes, rng, degree)
        if edges is None:
            continue
        graph = _both_ways(nodes, edges)
        if nodes == 1 or None not in distances(graph, 0):
            return graph
    what = f"edge_probability={probability}" if degree is None else f"degree={degree}"
    raise ConfigError(
        f"structured_interaction: no connected random graph of {nodes} nodes with {what} was found; raise it"
    )


def _drawn(nodes: int, rng: random.Random, probability: float) -> list[tuple[int, int]]:
    return [pair for pair in combinations(range(nodes), 2) if rng.random() < probability]


def _regular(nodes: int, rng: random.Random, degree: int) -> list[tuple[int, int]] | None:
    """One draw of the pairing model, None if it is no simple graph."""
    stubs = [node for node in range(nodes) for _ in range(degree)]
    rng.shuffle(stubs)
    pairs = {(min(i, j), max(i, j)) for i, j in zip(stubs[::2], stubs[1::2], strict=True) if i != j}
    return sorted(pairs) if 2 * len(pairs) == len(stubs) else None


def _both_ways(nodes: int, edges: Edges) -> Adjacency:
    return from_edges(nodes, [way for i, j in edges for way in ((i, j), (j, i))])
