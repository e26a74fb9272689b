"""Joint search for the roles and the weights of several models.

Feng et al., "Heterogeneous Swarms: Jointly Optimizing Model Roles and Weights for Multi-LLM Systems", arXiv 2502.04510
(NeurIPS 2025).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import attrs

from moco_core import ConfigError, Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, Sampling, System
from moco_core.converters import ints
from moco_method_heterogeneous_swarms.decode import c_gain
from moco_method_heterogeneous_swarms.options import Options
from moco_method_heterogeneous_swarms.search import Found, JointSearch
from moco_method_heterogeneous_swarms.walk import walk
from moco_toolkit_discussion import Adjacency, dot, from_edges
from moco_toolkit_merging import Merge, prepare, saved_merges, weight_needs

__all__ = ["HeterogeneousSwarms", "SwarmOfModels"]


def _edges(saved: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(ints(edge) for edge in saved)


@attrs.frozen(eq=False, slots=False)
class SwarmOfModels(System):
    """A graph of models. Node i is played by model ``assignment[i]``, and ``edges`` (u, v) say that v reads u.

    ``merges`` are the models where their weights were moved; without, they are those of the pool. ``facts`` hold the dev score,
    the graph as DOT text and the trace of the search.
    """

    edges: tuple[tuple[int, ...], ...] = attrs.field(default=(), converter=_edges)
    assignment: tuple[int, ...] = attrs.field(default=(0,), converter=ints)
    merges: tuple[Merge, ...] = attrs.field(default=(), converter=saved_merges)
    facts: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for merge in self.merges:
            for source in merge.sources:
                source.check(self.pool)
        if max(self.assignment) >= (len(self.merges) or len(self.pool)):
            raise ConfigError(
                f"heterogeneous_swarms: the graph was fitted on a pool of {max(self.assignment) + 1} models or more, this one "
                f"has {len(self.pool)}; fit again or use the old pool"
            )

    @cached_property
    def graph(self) -> Adjacency:
        return from_edges(len(self.assignment), self.edges)

    @cached_property
    def nodes(self) -> tuple[Model, ...]:
        """The models in node order."""
        models = [m.model(self.pool, f"{self.pool[i].name}*") for i, m in enumerate(self.merges)] or list(self.pool)
        return tuple(models[i] for i in self.assignment)

    async def respond(self, question: Question, context: Context) -> Reply:
        return await walk(self.graph, self.nodes, question, context, context.sampling, self.options.max_message_tokens)

    def state(self) -> Mapping[str, Any]:
        return {**super().state(), "merges": [m.dump() for m in self.merges]}


class HeterogeneousSwarms(Method[Options]):
    """Find the graph of models, and their weights where they can be merged, that answers dev best."""

    Options = Options
    system = SwarmOfModels
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Heterogeneous Swarms"
    paper: ClassVar[str] = "arXiv 2502.04510"

    def needs(self) -> Needs:
        if self.options.weight_step == "on":
            return weight_needs(min_models=2, composition=self.options.adapter_combine)
        return Needs(optional=frozenset({"weights"} if self.options.weight_step == "auto" else ()))

    def cost(self, models: int, dev: int) -> Cost:
        return self._cost(models, dev, self.options.weight_step != "off")

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        return self._cost(len(pool), dev, not self._unmergeable(pool))

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SwarmOfModels:
        options = self.options
        if len(pool) == 1:
            return SwarmOfModels(pool, options)
        if not dev:
            raise ConfigError(
                "heterogeneous_swarms chooses its graph by dev scores and there are no dev examples; raise the dev limit"
            )
        unmergeable = self._unmergeable(pool)
        if unmergeable:
            context.note(weight_step=f"off: {unmergeable}")
        else:
            await prepare(context, list(pool))
        search = JointSearch(pool, dev, options, context, weights=not unmergeable)
        try:
            best = await search.run()
        finally:
            search.close()
        merges = [] if unmergeable else [search.merge(position) for position in best.positions]
        system = SwarmOfModels(pool, options, edges=best.edges, assignment=best.assignment, merges=merges)
        facts = {
            "dev_score": best.score,
            "dot": picture(system),
            "trace": search.trace,
            **await self._checked(best, search, context),
        }
        context.note(dev_score=best.score, graph=facts["dot"])
        return attrs.evolve(system, facts=facts)

    def _cost(self, models: int, dev: int, weights: bool) -> Cost:
        options = self.options
        if models == 1:
            return Cost(fit=0, respond=1)
        used = min(dev, max(1, math.ceil(options.dev_ratio * dev)))
        systems = options.population + (options.num_assignments if weights else 0)
        check = models * used if options.check_dev else 0
        return Cost(fit=models * used * systems * (options.max_iterations + 1) + check, respond=models)

    def _unmergeable(self, pool: Sequence[Model]) -> str:
        """Return why the models' weights are not moved; empty if they are."""
        if self.options.weight_step == "off":
            return "weight_step is off"
        if len(pool) < 2:
            return "there is one model"
        problems = weight_needs(min_models=2, composition=self.options.adapter_combine).problems(pool)
        return problems[0] if problems and self.options.weight_step == "auto" else ""

    async def _checked(self, best: Found, search: JointSearch, context: Context) -> dict[str, Any]:
        """With ``check_dev``: what the system gains over its models alone, and a warning if one of them is better."""
        if not self.options.check_dev:
            return {}
        greedy = attrs.evolve(context.sampling, temperature=0.0)
        alone = await context.evaluate(search.pool, search.dev, greedy)
        singles = [[score or 0.0 for score in row] for row in alone.scores]
        name, top = alone.names[alone.best()], max(alone.means())
        if top > best.score:
            context.warn(
                f"heterogeneous_swarms: on dev, the best graph scores {best.score:.3f} and the best single model ({name}) "
                f"{top:.3f}"
            )
        gain = c_gain(best.scores, singles) if len(best.scores) == len(search.dev) else None
        return {"best_single": name, "best_single_dev_score": top, "c_gain": gain}


def picture(system: SwarmOfModels) -> str:
    """Return the graph as DOT text, nodes called by their numbers and models."""
    labels = [f"{node}: {model.name}" for node, model in enumerate(system.nodes)]
    sink = next(node for node, row in enumerate(system.graph) if not any(row))
    return dot(system.graph, labels, output=sink)
