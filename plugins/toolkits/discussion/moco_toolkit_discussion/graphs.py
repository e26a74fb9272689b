"""Who reads whom, as a directed graph: ``A[i][j] = 1`` means that node j reads node i. Nodes are numbered from 0."""

from __future__ import annotations

import graphlib
from collections import deque
from collections.abc import Iterable, Sequence

from moco_core import ConfigError

__all__ = ["Adjacency", "distances", "dot", "from_edges", "from_matrix", "layers", "sources", "topological_order"]

Adjacency = tuple[tuple[int, ...], ...]


def from_edges(nodes: int, edges: Iterable[Sequence[int]], where: str = "edges") -> Adjacency:
    """Return the adjacency of directed edges (i, j), "j reads i".

    Raises ConfigError, ``where`` in front, for an edge that is no pair, leaves the graph or leads from a node to itself.
    """
    rows = [[0] * nodes for _ in range(nodes)]
    for number, edge in enumerate(edges):
        if len(edge) != 2 or not all(0 <= node < nodes for node in edge):
            raise ConfigError(
                f"{where}[{number}]: {list(edge)} is no edge between two of the nodes 0 to {nodes - 1}; write [i, j]"
            )
        i, j = edge
        if i == j:
            raise ConfigError(
                f"{where}[{number}]: node {i} reads itself; a node's own last answer is shown to it anyway"
            )
        rows[i][j] = 1
    return tuple(tuple(row) for row in rows)


def from_matrix(nodes: int, matrix: Sequence[Sequence[int]], where: str = "adjacency") -> Adjacency:
    """Return a matrix of 0 and 1 as an adjacency.

    Raises ConfigError, ``where`` in front, if it is not nodes x nodes, holds anything else or has a 1 on its diagonal.
    """
    if len(matrix) != nodes or any(len(row) != nodes for row in matrix):
        shape = f"{len(matrix)} rows of {'/'.join(map(str, sorted({len(row) for row in matrix})))} entries"
        raise ConfigError(f"{where}: expected a {nodes} x {nodes} matrix, one row per node; got {shape}")
    for i, row in enumerate(matrix):
        for j, entry in enumerate(row):
            if entry not in (0, 1):
                raise ConfigError(f"{where}[{i}][{j}]: expected 0 or 1, got {entry}")
    return from_edges(nodes, [(i, j) for i, row in enumerate(matrix) for j, entry in enumerate(row) if entry], where)


def sources(adjacency: Adjacency, node: int) -> list[int]:
    """Return the nodes that a node reads, in order."""
    return [i for i, row in enumerate(adjacency) if row[node]]


def distances(adjacency: Adjacency, node: int) -> list[int | None]:
    """Return how many steps it takes from every node to ``node``; None where no path leads there."""
    found: list[int | None] = [None] * len(adjacency)
    found[node] = 0
    queue = deque([(node, 0)])
    while queue:
        at, far = queue.popleft()
        for i in sources(adjacency, at):
            if found[i] is None:
                found[i] = far + 1
                queue.append((i, far + 1))
    return found


def layers(adjacency: Adjacency) -> list[list[int]]:
    """Return the nodes of an acyclic graph by depth: each reads earlier layers only, and one of them is the layer before.

    The nodes of a layer can answer at the same time. Raises ValueError if there is a cycle.
    """
    sorter = graphlib.TopologicalSorter({j: sources(adjacency, j) for j in range(len(adjacency))})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise ValueError(f"the graph has a cycle: {' -> '.join(map(str, error.args[1]))}") from None
    out = []
    while sorter.is_active():
        layer = sorted(sorter.get_ready())
        out.append(layer)
        sorter.done(*layer)
    return out


def topological_order(adjacency: Adjacency) -> list[int]:
    """Return the nodes of an acyclic graph, every node after all that it reads, layer by layer, ties by number.

    Raises ValueError if there is a cycle.
    """
    return [node for layer in layers(adjacency) for node in layer]


def dot(adjacency: Adjacency, labels: Sequence[str], *, output: int | None = None) -> str:
    """Return a graph in the DOT language: an arrow from i to j where j reads i, one with two heads where both do.

    ``output`` is drawn with a double line.
    """
    lines = ["digraph {"]
    for node, label in enumerate(labels):
        text = label.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'  {node} [label="{text}"{", peripheries=2" if node == output else ""}];')
    for i, row in enumerate(adjacency):
        for j, reads in enumerate(row):
            if reads and not (adjacency[j][i] and j < i):
                lines.append(f"  {i} -> {j}{' [dir=both]' if adjacency[j][i] else ''};")
    return "\n".join([*lines, "}"])
