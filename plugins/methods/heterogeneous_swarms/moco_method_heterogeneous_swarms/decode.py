"""From a continuous matrix to a graph (G-Decode), and from assignments to the models' scores (JFK)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from moco_toolkit_swarm import softmax

__all__ = ["c_gain", "decode", "draw_assignments", "jfk"]

Edge = tuple[int, int]


def decode(matrix: Sequence[float], nodes: int, top_p: float, rng: random.Random) -> tuple[Edge, ...]:
    """Return the edges (u, v), "v reads u", that a matrix (row by row) stands for; sorted.

    Every node but one gets one edge, to a node that was placed before it, so that the graph is acyclic with one sink. The sink
    is drawn by 1 / row sum, the next node by its row sum and its reader by its own row, each from the softmax's nucleus.
    Negative entries count as 0; rows that sum to 0 share the chance of the sink.
    """
    rows = [[max(0.0, matrix[i * nodes + j]) if i != j else 0.0 for j in range(nodes)] for i in range(nodes)]
    sums = [math.fsum(row) for row in rows]
    silent = [i for i, total in enumerate(sums) if not math.isfinite(_inverse(total))]
    if silent:
        sink = silent[_pick([0.0] * len(silent), top_p, rng)]
    else:
        sink = _pick([_inverse(total) for total in sums], top_p, rng)
    placed, rest = [sink], [i for i in range(nodes) if i != sink]
    edges: list[Edge] = []
    while rest:
        u = rest.pop(_pick([sums[i] for i in rest], top_p, rng))
        edges.append((u, placed[_pick([rows[u][v] for v in placed], top_p, rng)]))
        placed = sorted([*placed, u])
    return tuple(sorted(edges))


def _inverse(total: float) -> float:
    return 1 / total if total > 1 / math.inf and total > 1e-300 else math.inf


def _pick(logits: Sequence[float], top_p: float, rng: random.Random) -> int:
    """Draw an index from the smallest set of a softmax's largest parts that holds ``top_p``; the largest if that is 0."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if top_p == 0:
        return order[0]
    shares = softmax(logits)
    kept: list[int] = []
    for index in order:
        kept.append(index)
        if math.fsum(shares[i] for i in kept) >= top_p:
            break
    return rng.choices(kept, [shares[i] for i in kept])[0]


def draw_assignments(count: int, nodes: int, models: int, rng: random.Random) -> list[tuple[int, ...]]:
    """Return ``count`` assignments of a model to every node, uniform with replacement.

    A model that was never drawn takes the place of one that was drawn more than once, as far as there are places.
    """
    drawn = [rng.randrange(models) for _ in range(count * nodes)]
    for model in range(models):
        if model not in drawn:
            spare = [place for place, other in enumerate(drawn) if drawn.count(other) > 1]
            if spare:
                drawn[rng.choice(spare)] = model
    return [tuple(drawn[i * nodes : (i + 1) * nodes]) for i in range(count)]


def jfk(assignments: Sequence[Sequence[int]], utilities: Sequence[float], models: int) -> list[float | None]:
    """Return every model's JFK-score: the mean utility of the assignments it is in, weighted by how often it is.

    None for a model that is in none of them.
    """
    out: list[float | None] = []
    for model in range(models):
        counts = [list(assignment).count(model) for assignment in assignments]
        total = sum(counts)
        worth = math.fsum(n * f for n, f in zip(counts, utilities, strict=True))
        out.append(worth / total if total else None)
    return out


def c_gain(system: Sequence[float], singles: Sequence[Sequence[float]]) -> float:
    """Return the collaborative gain: what the system scores beyond a model drawn at random, over the questions.

    ``singles[i][j]`` is model i's score on question j. Grouped by how many single models solve a question, as the paper does,
    the expectation of a group is that share of them.
    """
    if not system:
        return 0.0
    expected = [math.fsum(column) / len(column) for column in zip(*singles, strict=True)]
    return math.fsum(got - wanted for got, wanted in zip(system, expected, strict=True)) / len(system)
