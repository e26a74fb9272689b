"""Options of structured_interaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from moco_core import ConfigError, Model, Pool, Sampling, option
from moco_method_structured_interaction.topologies import BUILT_IN, Topology, layered, named
from moco_toolkit_discussion import Adjacency, distances, from_edges, from_matrix, model_problems, sources

__all__ = ["Options"]

_RUN = "none takes the run's"


@attrs.frozen(kw_only=True)
class Options:
    """Who sits where in which graph, how long they talk, and whose answer counts."""

    topology: Topology = option(
        "complete", help="who reads whom", paper="chain, cycle, tree, star (a wheel in the code), complete"
    )
    adjacency: tuple[tuple[int, ...], ...] | None = option(
        None, help="topology=custom: matrix of 0 and 1, row i column j is 1 where node j reads node i"
    )
    edges: tuple[tuple[int, ...], ...] | None = option(
        None, help="topology=custom: the same as a list of [i, j], node j reads node i"
    )
    layers: tuple[int, ...] | None = option(
        None, ge=1, help="topology=layered: nodes per layer; none makes two layers, the last one of a single node"
    )
    edge_probability: float = option(0.5, gt=0, le=1, help="topology=random: of every edge (Erdős–Rényi)")
    degree: int | None = option(None, ge=1, help="topology=random: edges of every node, instead of edge_probability")
    nodes: tuple[str | int, ...] | None = option(
        None, help="models on the nodes, by name or index, also one several times; none takes the pool", paper="6 nodes"
    )
    rounds: int = option(2, ge=0, help="updates after the first answers", paper="9")
    format: Literal["plain", "relcom"] = option(
        "plain", help="what a reply is: an answer, or the fields reason, answer and memory", paper="relcom"
    )
    output: Literal["best", "best_node", "vote", "summarizer", "sink"] = option(
        "best",
        help="whose answer counts: the node with the best dev score alone, or after the interaction; a vote; "
        "the summary of the best model; a node that is named",
        paper="all nodes are scored",
    )
    sink: int | None = option(None, ge=0, help="output=sink: the node whose answer counts; none takes the last")
    placement: Literal["given", "by_dev", "search"] = option(
        "given", help="model -> node: as given, best dev score first, or the best of several placements tried on dev"
    )
    search_topologies: tuple[Topology, ...] = option(
        (), help="placement=search: topologies to try; none tries the one that is set"
    )
    search_placements: int = option(
        4, ge=1, help="placement=search: placements to try per topology: as given, by dev, then drawn at random"
    )
    dev_sample: int | None = option(
        None, ge=1, help="dev examples that are discussed, for best_node and search; none takes all"
    )
    stop: Literal["never", "fixed_point"] = option(
        "never", help="early exit: no answer changed in a round; where decoding is greedy, no text"
    )
    labels: Literal["node", "shuffled"] = option(
        "node",
        help="neighbours are called by the number of their node and shown in its order, or numbered in an order drawn afresh, "
        "as multiagent_refine does",
    )
    temperature: float = option(0.7, ge=0, help="sampling of all calls except dev scores and summary", paper="0")
    top_p: float = option(0.9, gt=0, le=1, help="nucleus")
    max_new_tokens: int | None = option(None, ge=1, help=f"reply budget per call; {_RUN}", paper="1024")
    seed: int = option(
        0,
        help="added to the run's for random graphs, placements and orders; replies are sampled with the run's alone",
        paper="42 (code)",
    )

    def __attrs_post_init__(self) -> None:
        custom = "custom" in self.topologies
        if custom and (self.adjacency is None) == (self.edges is None):
            raise ConfigError("topology: custom takes its graph from adjacency or from edges; give one of them")
        if not custom and (self.adjacency is not None or self.edges is not None):
            raise ConfigError(f"adjacency and edges are for topology: custom; topology is {self.topology!r}")
        if self.sink is not None and self.output != "sink":
            raise ConfigError(f"sink is for output: sink; output is {self.output!r}")
        if self.format == "relcom" and self.output == "summarizer":
            raise ConfigError("output: summarizer reads plain answers; choose format: plain or another output")

    @property
    def topologies(self) -> tuple[Topology, ...]:
        """The topologies that may be used."""
        return (self.search_topologies if self.placement == "search" else ()) or (self.topology,)

    @property
    def evaluates(self) -> bool:
        """Whether dev scores of single models are needed."""
        return self.placement != "given" or self.output in ("best", "best_node", "summarizer")

    @property
    def least_models(self) -> int:
        """How many models the options speak of, where the nodes are the pool."""
        if self.nodes is not None:
            return 1
        named = [node + 1 for edge in self.edges or () for node in edge]
        return max([1, *named, len(self.adjacency or ()), sum(self.layers or ()), (self.sink or 0) + 1])

    def sampling(self, run: Sampling) -> Sampling:
        """Return the decoding of the replies."""
        return attrs.evolve(
            run,
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens or run.max_new_tokens,
        )

    def members(self, pool: Sequence[Model]) -> list[Model]:
        """Return the models in node order. Raises ConfigError for a name that is no model."""
        chosen = range(len(pool)) if self.nodes is None else self.nodes
        return [Pool(pool).named(name, "structured_interaction.nodes") for name in chosen]

    def fixed(self, topology: Topology, nodes: int) -> Adjacency | None:
        """Return a topology over so many nodes; None for a random one. Raises ConfigError if it does not fit them."""
        if topology in BUILT_IN:
            return named(topology, nodes)
        if topology == "random":
            if self.degree is not None and (self.degree >= nodes or self.degree * nodes % 2):
                raise ConfigError(
                    f"degree: no graph of {nodes} nodes has {self.degree} edges at every node; it must be below {nodes}, and "
                    "nodes times degree even"
                )
            return None
        if topology == "layered":
            sizes = self.layers or ((nodes - 1, 1) if nodes > 1 else (1,))
            if sum(sizes) != nodes:
                raise ConfigError(f"layers: {list(sizes)} are {sum(sizes)} nodes, there are {nodes}")
            return layered(sizes)
        if self.adjacency is not None:
            return from_matrix(nodes, self.adjacency)
        return from_edges(nodes, self.edges or ())

    def problems(self, pool: Sequence[Model]) -> list[str]:
        """Return what does not fit a pool, one sentence each; for ``Needs.check``."""
        nodes = len(pool) if self.nodes is None else len(self.nodes)
        out = model_problems(pool, self.nodes or (), "nodes")
        if self.nodes == ():
            out.append("nodes: there is none; name models, or leave nodes out to take the whole pool")
        sink = nodes - 1 if self.sink is None else self.sink
        if sink >= nodes > 0:
            out.append(f"sink: there is no node {sink}, the nodes are 0 to {nodes - 1}")
        for topology in self.topologies if nodes else ():
            try:
                graph = self.fixed(topology, nodes)
            except ConfigError as error:
                out.extend(error.problems)
                continue
            if graph and self.output == "sink" and self.rounds and 0 <= sink < nodes > 1 and not sources(graph, sink):
                out.append(
                    f"sink: node {sink} reads no other node ({topology}), so that nothing reaches it; name one that does"
                )
        return out


def far(graph: Adjacency, node: int, rounds: int) -> list[int]:
    """Return the nodes that cannot reach ``node`` within so many rounds."""
    return [i for i, steps in enumerate(distances(graph, node)) if steps is None or steps > rounds]
