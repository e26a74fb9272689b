"""A graph network on questions, models and their dev outcomes that predicts which question-model edge is the best one.

Feng, Shen and You 2024, "GraphRouter: A Graph-based Router for LLM Selections", arXiv 2410.03834 (ICLR 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Example,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
)
from moco_core.converters import floats, strings
from moco_method_graph_routing.options import Options, task_of
from moco_toolkit_quoting import transcript
from moco_toolkit_routing import (
    Encoder,
    Outcomes,
    cost_curve,
    encoder_names,
    encoder_problems,
    hand_over,
    pick,
    pricing,
    report,
    unchanged,
    wins_by_fold,
)

__all__ = ["GraphRouting", "GraphRoutingSystem"]

_FILE = "graph.safetensors"


@attrs.frozen(eq=False, slots=False)
class GraphRoutingSystem(System):
    """The candidates' names and relative costs, who answers if there is no choice, who embeds, and the known tasks' names.

    ``network`` and ``graph`` are what was learnt (None where dev gave nothing to learn), ``arrays`` the vectors of the known
    tasks and how embeddings are standardised.
    """

    names: tuple[str, ...] = attrs.field(converter=strings)
    costs: tuple[float, ...] = attrs.field(converter=floats)
    fallback: int
    encoders: tuple[str, ...] = attrs.field(converter=strings)
    tasks: tuple[str, ...] = attrs.field(default=(), converter=strings)
    network: Any = None
    graph: Any = None
    arrays: Mapping[str, Any] = attrs.field(factory=dict)

    @cached_property
    def candidates(self) -> tuple[Model, ...]:
        """The models that may answer, those that joined by description last."""
        return tuple(self.pool.named(name, "graph_routing") for name in self.names)

    @cached_property
    def encoder(self) -> Encoder:
        """Who embeds."""
        return Encoder(models=tuple(self.pool.named(name, "graph_routing.encoder") for name in self.encoders))

    @cached_property
    def router(self) -> Any:
        """The models' embeddings after message passing, and the projections of a question."""
        from moco_method_graph_routing.training import router

        return router(self.network, self.graph)

    @property
    def model(self) -> Model | None:
        return self.candidates[self.fallback] if self.network is None else None

    def state(self) -> Mapping[str, Any]:
        plain = attrs.evolve(self, network=None, graph=None, arrays={})
        return {k: v for k, v in System.state(plain).items() if k not in ("network", "graph", "arrays")}

    def save_files(self, folder: Path) -> None:
        if self.network is not None:
            from moco_method_graph_routing.fitting import save

            save(self.network, self.graph, self.arrays, folder / _FILE)

    async def scores(self, question: Question, context: Context) -> list[float]:
        """Return the predicted score of every question-model edge. Raises ModelCallError."""
        from moco_method_graph_routing.building import standardised

        encode, task = self.encoder.encode, task_of(question, self.options)
        if task in self.tasks:
            read = self.arrays["tasks"][self.tasks.index(task)]
        else:
            read = standardised(await encode(task, context), self.arrays)
        vector = standardised(await encode(transcript(question), context), self.arrays)
        found: list[float] = self.router.scores(read, vector)
        return found

    async def route(self, question: Question, context: Context) -> tuple[int, dict[str, Any]]:
        """Return who answers, and what the record tells about it."""
        if self.network is None:
            return self.fallback, {}
        try:
            scores = await self.scores(question, context)
        except ModelCallError as error:
            return self.fallback, {"unrouted": str(error)}
        choice = pick(scores, self.costs)
        if choice is None:
            return self.fallback, {"unrouted": "the network's output is not finite"}
        return choice, {"scores": {name: round(s, 6) for name, s in zip(self.names, scores, strict=True)}}

    async def respond(self, question: Question, context: Context) -> Reply:
        choice, meta = await self.route(question, context)
        return await hand_over(self.candidates, choice, self.fallback, question, context, **meta)


class GraphRouting(Method[Options]):
    """A graph network predicts the best model for a question from its embedding and the models' outcomes on dev."""

    Options = Options
    system = GraphRoutingSystem
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Graph routing"
    paper: ClassVar[str] = "arXiv 2410.03834"

    def needs(self) -> Needs:
        return Needs(capabilities=(), optional=("generate", "embed"), min_models=2, check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        return self._cost(models, models, dev)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        seen, new = self._split(pool)
        return self._cost(len(seen) + len(new), len(encoder_names(pool, self.options.encoder)), dev)

    def _cost(self, models: int, readers: int, dev: int) -> Cost:
        """Predict calls: a reading of every dev question and its task, and eight more for three rewordings of each."""
        options = self.options
        asked = (models - len(options.new_models)) * dev + len(options.new_models) * min(options.few_shot, dev)
        read = readers * (models + dev * (2 + (4 if options.rewording else 0)))
        return Cost(fit=asked + read, respond=2 * readers + 2)

    def _split(self, pool: Sequence[Model]) -> tuple[list[Model], list[Model]]:
        """Return the models that dev is answered by, and those that join by their description."""
        writers = [model for model in pool if model.can("generate")]
        new = self.options.new_models
        return [m for m in writers if m.name not in new], [m for m in writers if m.name in new]

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> GraphRoutingSystem:
        options = self.options
        if not dev:
            raise ConfigError("graph_routing: learns from dev and there are no dev examples; raise the dev limit")
        seen, new = self._split(pool)
        outcomes = Outcomes.of(await context.evaluate(seen, dev), dev, pricing(seen, self._prices(pool, seen)))
        system = GraphRoutingSystem(
            pool,
            options,
            [m.name for m in (*seen, *new)],
            [*outcomes.relative_costs, *[1.0] * len(new)],
            outcomes.best(),
            encoder_names(pool, options.encoder),
        )
        from moco_method_graph_routing.building import build, joined
        from moco_method_graph_routing.fitting import learn

        graph, arrays, tasks = await build(system, outcomes, dev, context)
        self._tell(outcomes, graph, context)
        if not graph.telling.any():
            context.warn(
                "graph_routing: dev says nothing about who should answer (all models do alike); "
                f"{system.names[system.fallback]} answers everything"
            )
            return system
        seed = context.rng("graph_routing", options.seed).getrandbits(31)
        strata = [tuple(int(i) for i in row.nonzero()[0]) for row in graph.labels]
        network, learnt = await learn(graph, strata, options, seed, context)
        context.note(encoders=list(system.encoders), held_out=len(learnt.held), fit=learnt.facts)
        self._judge(outcomes, learnt, system, context)
        system = attrs.evolve(
            system, network=network, graph=graph.only(learnt.train), arrays=arrays, tasks=tuple(tasks)
        )
        if new:
            rows = sorted(
                context.rng("graph_routing.shots", options.seed).sample(list(learnt.train), self._shots(learnt))
            )
            prices = pricing(new, self._prices(pool, new))
            system = attrs.evolve(
                system, graph=await joined(system, new, outcomes, dev, learnt.train, rows, prices, context)
            )
        if options.rewording:
            await self._reword(system, dev, context)
        return system

    def _shots(self, learnt: Any) -> int:
        return min(self.options.few_shot, len(learnt.train))

    def _prices(self, pool: Sequence[Model], models: Sequence[Model]) -> list[float] | None:
        if self.options.prices is None:
            return None
        writers = [model for model in pool if model.can("generate")]
        return [self.options.prices[next(i for i, w in enumerate(writers) if w is m)] for m in models]

    def _tell(self, outcomes: Outcomes, graph: Any, context: Context) -> None:
        """Note dev scores and how much there is to learn; warn about what will not work as asked."""
        options = self.options
        best = [int(n) for n in graph.labels[graph.telling].sum(0)]
        context.note(
            dev_scores=dict(zip(outcomes.names, outcomes.means(), strict=True)),
            relative_costs=dict(zip(outcomes.names, outcomes.relative_costs, strict=True)),
            cost_unit=outcomes.unit if outcomes.cost_signal else "no cost signal",
            best_on=dict(zip(outcomes.names, best, strict=True)),
            learnt_from=int(graph.telling.sum()),
        )
        never = [name for name, count in zip(outcomes.names, best, strict=True) if not count]
        if never and len(never) < len(best):
            context.warn(f"graph_routing: never best on dev, and so hardly ever chosen: {', '.join(never)}")
        if options.utility[1] and not outcomes.cost_signal:
            context.warn(
                "graph_routing: the models' costs are equal or unknown: no cost signal, their weight does nothing"
            )
        if 1 < outcomes.questions < options.folds:
            context.warn(
                f"graph_routing: {outcomes.questions} dev questions are too few for {options.folds} folds: one for each"
            )
        if outcomes.questions == 1:
            context.warn("graph_routing: one dev question: nothing is held out, and what was learnt cannot be judged")

    def _judge(self, outcomes: Outcomes, learnt: Any, system: GraphRoutingSystem, context: Context) -> None:
        """Note what routing among the models that dev knows is worth on questions that were not learnt from."""
        rows = list(range(outcomes.questions)) if learnt.parts else list(learnt.held)
        values = learnt.values if learnt.parts else learnt.held_values
        if not rows:
            return
        part, costs = outcomes.only(rows), outcomes.relative_costs
        found = [pick(row, costs) for row in values]
        routes = [system.fallback if choice is None else choice for choice in found]
        figures: dict[str, Any] = {
            "routing": report(part, routes),
            "judged_by": f"{len(learnt.parts)} folds" if learnt.parts else "the held-out share",
        }
        if learnt.parts:
            figures["by_fold"] = wins_by_fold(outcomes, routes, learnt.parts)
        if curve := cost_curve(part, values):
            figures["curve"] = curve
        context.note(**figures)
        worth = figures["routing"]
        if worth["routed"] < worth["best_single"] and not self.options.utility[1]:
            context.warn(
                f"graph_routing: on dev questions that it has not seen, routing scores {worth['routed']:.3f} and the best "
                f"single model ({worth['best_single_model']}) {worth['best_single']:.3f}"
            )

    async def _reword(self, system: GraphRoutingSystem, dev: Sequence[Example], context: Context) -> None:
        """Note how many choices on dev stay as they are when the question is reworded."""

        async def chosen(question: Question, scope: Context) -> int:
            return (await system.route(question, scope))[0]

        questions = [example.question for example in dev]
        routes = await context.each(questions, chosen, label="routing dev")
        context.note(unchanged=await unchanged(questions, routes, chosen, context))

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> GraphRoutingSystem:
        if not (folder / _FILE).exists():
            return GraphRoutingSystem(pool, self.options, **state)
        from moco_method_graph_routing.fitting import load

        network, graph, arrays = load(folder / _FILE, self.options)
        return GraphRoutingSystem(pool, self.options, **state, network=network, graph=graph, arrays=arrays)

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options = self.options
        if len(pool) < 2:
            return []
        seen, new = self._split(pool)
        writers, out = len(seen) + len(new), []
        if writers < 2:
            out.append(f"needs two models that write text, the pool has {writers}; add models to the pool")
        elif len(seen) < 2:
            out.append("new_models: two models at least must be known from dev; name fewer")
        known = {model.name for model in pool}
        out += [f"new_models: no model {name!r} in the pool" for name in options.new_models if name not in known]
        for key in ("prices", "model_descriptions"):
            given = getattr(options, key)
            if given is not None and len(given) != writers:
                out.append(f"{key}: {writers} models need as many values, got {len(given)}")
        return out + encoder_problems(pool, options.encoder)
