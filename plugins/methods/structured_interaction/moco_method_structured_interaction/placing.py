"""Which model sits where, in which graph, and whose word counts: tried on dev with the full protocol."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs

from moco_core import Context, Example, Reply
from moco_method_structured_interaction.options import Options
from moco_method_structured_interaction.system import StructuredInteractionSystem
from moco_method_structured_interaction.topologies import Topology, random_graph
from moco_toolkit_discussion import Adjacency

__all__ = ["candidates", "graph_of", "try_all"]

Placement = tuple[Topology, tuple[str, ...]]


def graph_of(topology: Topology, nodes: int, options: Options, context: Context) -> Adjacency:
    """Return the graph of a topology; a random one is drawn by the run's seed and the option's."""
    graph = options.fixed(topology, nodes)
    if graph is not None:
        return graph
    rng = context.rng("structured_interaction", "graph", options.seed)
    return random_graph(nodes, rng, probability=options.edge_probability, degree=options.degree)


def candidates(
    names: tuple[str, ...], skills: Mapping[str, float] | None, options: Options, context: Context
) -> list[Placement]:
    """Return what may be used: one topology and order of the models, or those that a search tries."""
    by_dev = names if skills is None else tuple(sorted(names, key=lambda name: -skills[name]))
    if options.placement != "search" or skills is None:
        return [(options.topologies[0], names if options.placement == "given" else by_dev)]
    orders = list(dict.fromkeys([names, by_dev]))
    rng = context.rng("structured_interaction", "placement", options.seed)
    for _ in range(100 * options.search_placements):  # few names have fewer orders than are asked for
        if len(orders) >= options.search_placements:
            break
        drawn = tuple(rng.sample(names, len(names)))
        if drawn not in orders:
            orders.append(drawn)
    return [(topology, order) for topology in options.topologies for order in orders[: options.search_placements]]


async def try_all(
    systems: Sequence[StructuredInteractionSystem], dev: Sequence[Example], context: Context
) -> StructuredInteractionSystem:
    """Return the system with the best mean dev score, ties to the first; with output=best_node, with its best node.

    Notes, per system, its score and the nodes' mean scores after every round; their mean is the paper's joint accuracy.
    """
    options: Options = systems[0].options
    size = min(len(dev), options.dev_sample or len(dev))
    chosen = sorted(context.rng("structured_interaction", "dev", options.seed).sample(range(len(dev)), size))
    tried = []
    for system in systems:
        rows = await context.each([dev[j] for j in chosen], _scored(system), label=f"{' - '.join(system.nodes)} on dev")
        rounds = max(len(row.nodes) for row in rows)
        turns = [[_mean([row.at(t)[i] for row in rows]) for i in range(len(system.nodes))] for t in range(rounds)]
        score = _mean([row.final for row in rows])
        if options.output == "best_node":
            skills = system.skills or [0.0] * len(system.nodes)
            node = max(range(len(system.nodes)), key=lambda i: (turns[-1][i], skills[i], -i))
            system, score = attrs.evolve(system, output=node), turns[-1][node]
        context.note(
            tried=list(system.nodes),
            graph=system.picture,
            score=score,
            nodes_by_turn=turns,
            joint=[_mean(t) for t in turns],
        )
        tried.append((score, system))
    return max(tried, key=lambda pair: pair[0])[1]


@attrs.frozen
class _Row:
    """The scores of one discussion: of every node after every round, and of its conclusion."""

    nodes: list[list[float]]
    final: float

    def at(self, turn: int) -> list[float]:
        """The nodes' scores after a round; a discussion that ended early stays as it was."""
        return self.nodes[min(turn, len(self.nodes) - 1)]


def _scored(system: StructuredInteractionSystem) -> Callable[[Example, Context], Awaitable[_Row]]:
    async def one(example: Example, scope: Context) -> _Row:
        async def grade(text: str | None) -> float:
            return 0.0 if text is None else (await scope.grade(example, Reply(text=text))).value or 0.0

        talk = await system.discuss(example.question, scope)
        nodes = [await scope.gather(grade(text) for text in row) for row in talk.texts]
        return _Row(nodes, (await scope.grade(example, await system.conclude(talk))).value or 0.0)

    return one


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
