"""The search: one swarm of graphs, one of models, both judged by what the resulting systems score on dev."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from moco_core import ConfigError, Context, Example, Model, Pool, PromptTooLong, Reply
from moco_method_heterogeneous_swarms.decode import Edge, decode, draw_assignments, jfk
from moco_method_heterogeneous_swarms.options import Options
from moco_method_heterogeneous_swarms.walk import walk
from moco_toolkit_discussion import from_edges
from moco_toolkit_merging import Linear, Merge, Workspace, share_base
from moco_toolkit_merging.workspace import quarter_of_memory
from moco_toolkit_swarm import Swarm, Vector, one_hot, uniform_positions

__all__ = ["Found", "JointSearch"]


@attrs.frozen(kw_only=True)
class Found:
    """A system that was scored: its graph, which model every node has, where each model stands, and its dev scores."""

    edges: tuple[Edge, ...]
    assignment: tuple[int, ...]
    positions: tuple[Vector, ...]
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        return math.fsum(self.scores) / len(self.scores)


class JointSearch:
    """The search on one pool. ``best`` is the best system ever scored, ``trace`` has one line per iteration."""

    def __init__(self, pool: Pool, dev: Sequence[Example], options: Options, context: Context, weights: bool) -> None:
        self.pool, self.options, self.context, self.weights = pool, options, context, weights
        self.dev = tuple(dev[: max(1, math.ceil(options.dev_ratio * len(dev)))])
        self.best: Found | None = None
        self.trace: list[dict[str, Any]] = []
        self.workspace = Workspace(quarter_of_memory())
        self._sampling = attrs.evolve(context.sampling, temperature=0.0)
        self._known: dict[tuple[Any, ...], tuple[float, ...]] = {}

    async def run(self) -> Found:
        """Return the best system: graph step and weight step in turn until the graphs stop improving."""
        graphs, models = self._swarms()
        positions: Sequence[Vector] = one_hot(len(self.pool))
        identity = tuple(range(len(self.pool)))
        while proposals := graphs.ask():
            number = proposals[0].iteration
            decoded = [self._decode(p.position, number, p.particle) for p in proposals]
            scores = await self._score([(edges, identity) for edges in decoded], positions, f"graphs {number}")
            graphs.tell(scores)
            line: dict[str, Any] = {"iteration": number, "graphs": scores, "step_length": graphs.moved_by}
            if self.weights:
                positions = [p.position for p in models.ask()]
                edges = decoded[max(range(len(scores)), key=lambda i: (scores[i], -i))]
                drawn = self._assignments(number)
                utilities = await self._score([(edges, a) for a in drawn], positions, f"models {number}")
                told = self._jfk(drawn, utilities, models)
                models.tell(told)
                line |= {"assignments": utilities, "jfk": told}
            assert self.best is not None
            line["best"] = self.best.score
            self.trace.append(line)
            self.context.note(**line)
            self.context.progress("search", number + 1, self.options.max_iterations + 1, f"best {self.best.score:.3f}")
        assert self.best is not None
        return self.best

    def close(self) -> None:
        """Free what was kept between candidates."""
        self.workspace.limit = 0
        self.workspace.clear()

    def merge(self, position: Vector) -> Merge:
        """Return the model that stands at a position: coefficients over the models of the pool."""
        models = list(self.pool)
        if share_base(models):
            return Merge.adapters(position, models, self.options.adapter_combine)
        return Merge.weights(Linear(coefficients=tuple(position)), models)

    # ---------------------------------------------------------------- inside

    def _swarms(self) -> tuple[Swarm[Vector], Swarm[Vector]]:
        options, size = self.options, len(self.pool)

        def seed(what: str) -> int:
            return self.context.rng("heterogeneous_swarms", what, options.seed).getrandbits(32)

        drawn = uniform_positions(
            options.population, size * size, self.context.rng("heterogeneous_swarms", options.seed)
        )
        matrices = [tuple(0.0 if i % (size + 1) == 0 else x for i, x in enumerate(matrix)) for matrix in drawn]
        settings = options.settings(seed("graphs"))
        # the swarm of models never ends by itself: it moves for as long as the graphs do
        lasting = attrs.evolve(settings, seed=seed("models"), patience=options.max_iterations + 1)
        return (
            Swarm(settings, matrices, record_positions=False),
            Swarm(lasting, one_hot(size), record_positions=False),
        )

    def _decode(self, matrix: Vector, iteration: int, particle: int) -> tuple[Edge, ...]:
        rng = self.context.rng("heterogeneous_swarms", "decode", self.options.seed, iteration, particle)
        return decode(matrix, len(self.pool), self.options.decode_top_p, rng)

    def _assignments(self, iteration: int) -> list[tuple[int, ...]]:
        rng = self.context.rng("heterogeneous_swarms", "assignments", self.options.seed, iteration)
        return draw_assignments(self.options.num_assignments, len(self.pool), len(self.pool), rng)

    def _jfk(self, drawn: Sequence[Sequence[int]], utilities: Sequence[float], models: Swarm[Vector]) -> list[float]:
        """Return what the swarm of models is told: JFK-scores, and the mean utility for a model without one."""
        mean = math.fsum(utilities) / len(utilities)
        return [mean if score is None else score for score in jfk(drawn, utilities, len(self.pool))]

    async def _score(
        self, systems: Sequence[tuple[tuple[Edge, ...], tuple[int, ...]]], positions: Sequence[Vector], label: str
    ) -> list[float]:
        """Return the mean dev score of every system, equal ones scored once; remember the best."""
        models = [
            self.merge(p).model(self.pool, f"{self.pool[i].name}*", self.workspace) for i, p in enumerate(positions)
        ]
        keys = [(edges, tuple(models[m].fingerprint for m in assignment)) for edges, assignment in systems]
        missing = {
            key: (edges, [models[m] for m in assignment])
            for key, (edges, assignment) in zip(keys, systems, strict=True)
            if key not in self._known
        }
        found = await self.context.gather(self._run(edges, nodes, label) for edges, nodes in missing.values())
        self._known |= dict(zip(missing, found, strict=True))
        for key, (edges, assignment) in zip(keys, systems, strict=True):
            scored = Found(edges=edges, assignment=assignment, positions=tuple(positions), scores=self._known[key])
            if self.best is None or scored.score > self.best.score:
                self.best = scored
        return [math.fsum(self._known[key]) / len(self._known[key]) for key in keys]

    async def _run(self, edges: Sequence[Edge], nodes: Sequence[Model], label: str) -> tuple[float, ...]:
        """Return a system's scores on dev, greedily decoded. Raises ConfigError if the metric scores nothing."""
        graph = from_edges(len(nodes), edges)

        async def one(example: Example, scope: Context) -> float | None:
            try:
                reply = await walk(
                    graph, nodes, example.question, scope, self._sampling, self.options.max_message_tokens
                )
            except PromptTooLong as error:  # it will be as long in the test
                self.context.warn(f"heterogeneous_swarms: a dev question counts as not answered: {error}")
                reply = Reply(text="")
            return (await scope.grade(example, reply)).value

        scores = await self.context.each(self.dev, one, label=label)
        known = tuple(score for score in scores if score is not None)
        if not known:
            raise ConfigError("the metric scored no dev example; choose a dataset with references or another metric")
        return known
