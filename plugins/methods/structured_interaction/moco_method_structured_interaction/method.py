"""Structured interaction on a fixed graph.

Yu et al., "NetSafe: Exploring the Topological Safety of Multi-agent Networks", arXiv 2410.15686 (its RelCom protocol).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import attrs

from moco_core import ConfigError, Context, Cost, Example, Method, Model, Needs, Pool
from moco_method_structured_interaction.options import Options, far
from moco_method_structured_interaction.placing import candidates, graph_of, try_all
from moco_method_structured_interaction.system import StructuredInteractionSystem
from moco_method_structured_interaction.topologies import Topology
from moco_toolkit_discussion import Adjacency, sources

__all__ = ["StructuredInteraction"]


class StructuredInteraction(Method[Options]):
    """After independent first answers, every node of a graph repeatedly updates its own from its in-neighbours' last ones."""

    Options = Options
    system = StructuredInteractionSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Structured interaction"
    paper: ClassVar[str] = "arXiv 2410.15686"

    def needs(self) -> Needs:
        return Needs(min_models=self.options.least_models, check=self.options.problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        nodes, distinct = (len(options.nodes), len(set(options.nodes))) if options.nodes else (models, models)
        summary = options.output == "summarizer"
        talks = [nodes + options.rounds * self._readers(topology, nodes) + summary for topology in options.topologies]
        fit = distinct * dev if options.evaluates and nodes > 1 else 0
        if options.placement == "search" and nodes > 1:
            fit += sum(talks) * options.search_placements * min(dev, options.dev_sample or dev)
        elif options.output == "best_node" and nodes > 1:
            fit += talks[0] * min(dev, options.dev_sample or dev)
        return Cost(fit=fit, respond=max(talks))

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> StructuredInteractionSystem:
        options = self.options
        members = options.members(pool)
        names = tuple(model.name for model in members)
        skills = await self._skills(members, dev, context)
        systems = []
        for topology, order in candidates(names, skills, options, context):
            graph = graph_of(topology, len(names), options, context)
            systems.append(self._system(pool, order, graph, skills))
        system = systems[0]
        if len(systems) > 1 or (options.output == "best_node" and len(members) > 1):
            system = await try_all(systems, dev, context)
        context.note(nodes=list(system.nodes), output=system.output, graph=system.picture)
        self._tell_unheard(system, context)
        return system

    async def _skills(
        self, members: Sequence[Model], dev: Sequence[Example], context: Context
    ) -> dict[str, float] | None:
        """Return the mean dev score of every model alone, where it is needed."""
        options = self.options
        if not options.evaluates or len(members) == 1:
            return None
        if not dev:
            raise ConfigError(
                f"structured_interaction: placement: {options.placement} and output: {options.output} need dev examples, there "
                "are none; raise the dev limit, or choose placement=given with output=vote or sink"
            )
        greedy = attrs.evolve(options.sampling(context.sampling), temperature=0.0)
        evaluation = await context.evaluate(list(dict.fromkeys(members)), dev, greedy)
        skills = dict(zip(evaluation.names, evaluation.means(), strict=True))
        context.note(dev_scores=skills)
        return skills

    def _system(
        self, pool: Pool, nodes: Sequence[str], graph: Adjacency, skills: dict[str, float] | None
    ) -> StructuredInteractionSystem:
        options = self.options
        by_node = None if skills is None else [skills[name] for name in nodes]
        output: int | None = None
        if options.output == "sink":
            output = len(nodes) - 1 if options.sink is None else options.sink
        elif options.output != "vote":
            output = 0 if by_node is None else max(range(len(nodes)), key=lambda i: (by_node[i], -i))
        return StructuredInteractionSystem(pool, options, nodes, graph, output, by_node)

    def _readers(self, topology: Topology, nodes: int) -> int:
        """The nodes that read others; where the graph does not fit so many nodes, all."""
        try:
            graph = self.options.fixed(topology, nodes)
        except ConfigError:
            return nodes
        if graph is None:
            return nodes if nodes > 1 else 0
        return sum(bool(sources(graph, node)) for node in range(nodes))

    def _tell_unheard(self, system: StructuredInteractionSystem, context: Context) -> None:
        options = self.options
        if system.output is None or options.output == "summarizer" or not options.rounds:
            return
        if unheard := far(system.graph, system.output, options.rounds):
            context.warn(
                f"structured_interaction: {len(unheard)} of {len(system.nodes)} nodes "
                f"({', '.join(system.nodes[i] for i in unheard)}) cannot reach the output node {system.output} "
                f"({system.nodes[system.output]}) within {options.rounds} rounds: what they say never counts"
            )
