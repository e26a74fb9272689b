"""A router that is learnt from dev: a question is answered by the model that is most probably the best one for it.

Ong et al. 2024, "RouteLLM: Learning to Route LLMs with Preference Data", arXiv 2406.18665 (ICLR 2025).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    CapabilityError,
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
from moco_method_trained_router.choosing import calibrated, choose
from moco_method_trained_router.lesson import Lesson, reward_model, targets
from moco_method_trained_router.options import Options
from moco_toolkit_quoting import transcript
from moco_toolkit_routing import (
    Encoder,
    Outcomes,
    encoder_names,
    encoder_problems,
    hand_over,
    pricing,
    settled,
    unchanged,
)

__all__ = ["TrainedRouter", "TrainedRouterSystem"]

_MODEL = "model"


def _writers(pool: Sequence[Model]) -> tuple[Model, ...]:
    return tuple(model for model in pool if model.can("generate"))


@attrs.frozen(eq=False, slots=False)
class TrainedRouterSystem(System):
    """The candidates' costs (shares of the dearest one's), who answers if there is no choice, the threshold, the router.

    The router is a ``head`` on the embeddings of the ``encoders`` (names), or a ``trained`` model; neither where dev gave
    nothing to learn: then the fallback answers everything.
    """

    costs: tuple[float, ...] = attrs.field(converter=floats)
    fallback: int
    threshold: float | None = None
    encoders: tuple[str, ...] = attrs.field(default=(), converter=strings)
    head: Any = None
    trained: Model | None = None

    @cached_property
    def candidates(self) -> tuple[Model, ...]:
        """The models that may answer."""
        return _writers(self.pool)

    @cached_property
    def encoder(self) -> Encoder:
        """Who embeds."""
        return Encoder(models=tuple(self.pool.named(name, "trained_router.encoder") for name in self.encoders))

    @cached_property
    def asker(self) -> Any:
        """How the trained model is asked."""
        from moco_method_trained_router.models import Asker

        own = tuple(m.description.strip() or m.name for m in self.candidates)
        return Asker(options=self.options, descriptions=self.options.model_descriptions or own)

    @property
    def model(self) -> Model | None:
        return self.candidates[self.fallback] if self.head is None and self.trained is None else None

    def state(self) -> Mapping[str, Any]:
        from moco_toolkit_training import kept

        plain = attrs.evolve(self, head=None, trained=None)
        state = {name: value for name, value in System.state(plain).items() if name not in ("head", "trained")}
        return {**state, "trained": kept(self.trained)} if self.trained is not None else state

    def save_files(self, folder: Path) -> None:
        if self.head is not None:
            from safetensors.numpy import save_file

            from moco_method_trained_router.fitting import FILE

            save_file({name: array.copy() for name, array in self.head.arrays.items()}, str(folder / FILE))
        if self.trained is not None:
            from moco_toolkit_training import save_trained

            save_trained(self.trained, folder / _MODEL)

    async def values(self, question: Question, context: Context) -> list[float]:
        """Return the router's probabilities. Raises ModelCallError."""
        found: list[float]
        if self.trained is not None:
            found = await self.asker.values(self.trained, question, context)
        else:
            found = self.head.probabilities(await self.encoder.encode(transcript(question), context))
        return found

    async def route(self, question: Question, context: Context) -> tuple[int, dict[str, Any]]:
        """Return who answers, and what the record tells about it."""
        if self.model is not None:
            return self.fallback, {}
        try:
            values = await self.values(question, context)
        except ModelCallError as error:
            return self.fallback, {"unrouted": str(error)}
        choice = choose(values, self.costs, self.threshold, self.options)
        if choice is None:
            return self.fallback, {"unrouted": "the router's output is not finite"}
        return choice, {"shares": {m.name: round(v, 6) for m, v in zip(self.candidates, values, strict=True)}}

    async def respond(self, question: Question, context: Context) -> Reply:
        choice, meta = await self.route(question, context)
        return await hand_over(self.candidates, choice, self.fallback, question, context, **meta)


class TrainedRouter(Method[Options]):
    """A router that was trained on dev outcomes names one model per question; only that one is run."""

    Options = Options
    system = TrainedRouterSystem
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Trained router"
    paper: ClassVar[str] = "arXiv 2406.18665"

    def needs(self) -> Needs:
        own = {"encoder": {"train", "reward"}, "causal_lm": {"train", "score"}}.get(self.options.router, {"embed"})
        judge = {"reward"} if self.options.tie == "reward_model" else set()
        return Needs(capabilities=(), optional={"generate", *own, *judge}, min_models=2, check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        return self._cost(models, models if self.options.embedded else 1, dev)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        readers = len(encoder_names(pool, self.options.encoder)) if self.options.embedded else 1
        found, writers = self._cost(len(_writers(pool)), readers, dev), _writers(pool)
        if self.options.embedded:
            return found
        from moco_method_trained_router.models import predicted

        own = self.options.model_descriptions or [m.description or m.name for m in writers]
        return attrs.evolve(found, **predicted(pool, self.options, own, dev))

    def _cost(self, models: int, readers: int, dev: int) -> Cost:
        options = self.options
        judged = models * dev if options.tie == "reward_model" else 0
        held = 0 if options.embedded else math.ceil(options.val_fraction * dev) + (dev if options.parts > 1 else 0)
        read = dev * (int(options.embedded) + (4 if options.rewording else 0))  # dev itself, and three rewordings
        return Cost(fit=models * dev + judged + held + readers * read, respond=readers + 2)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> TrainedRouterSystem:
        options, candidates = self.options, _writers(pool)
        if not dev:
            raise ConfigError("trained_router: learns from dev and there are no dev examples; raise the dev limit")
        evaluation = await context.evaluate(candidates, dev)
        outcomes = Outcomes.of(evaluation, dev, pricing(candidates, options.prices))
        names = encoder_names(pool, options.encoder) if options.embedded else ()
        system = TrainedRouterSystem(pool, options, outcomes.relative_costs, outcomes.best(), encoders=names)
        from moco_method_trained_router.fitting import embed, learn
        from moco_method_trained_router.judging import judge, tell_lesson
        from moco_method_trained_router.models import base_of, learn_model

        unread: list[tuple[float, ...] | None] = [()] * len(dev)
        lesson = Lesson(
            inputs=await embed(system.encoder, dev, context) if options.embedded else unread,
            targets=await targets(dev, evaluation, outcomes, options, context),
            scores=list(zip(*outcomes.scores, strict=True)),
        )
        rows = self._telling(lesson, outcomes)
        tell_lesson(outcomes, rows, options, context)
        if not rows:
            context.warn(
                "trained_router: dev says nothing about who should answer (all models score alike); "
                f"{candidates[system.fallback].name} answers everything"
            )
            return system
        seed = context.rng("trained_router", options.seed).getrandbits(31)
        strata = outcomes.winners(options.tie_eps)
        if options.embedded:
            head, learnt = await learn(lesson, strata, options, seed, context)
            system = attrs.evolve(system, head=head)
        else:
            base = base_of(pool, options)
            assert base is not None  # the pool was checked
            trained, learnt = await learn_model(base, system.asker, dev, lesson, strata, seed, context)
            system = attrs.evolve(system, trained=trained)
        context.note(router=options.router, encoders=list(names), held_out=len(learnt.held), fit=learnt.facts)
        system = attrs.evolve(system, threshold=self._threshold(outcomes, learnt.held, learnt.held_values))
        judge(outcomes, learnt, system.fallback, system.threshold, options, context)
        if options.rewording:
            await self._reword(system, dev, context)
        return system

    def _telling(self, lesson: Lesson, outcomes: Outcomes) -> list[int]:
        """Return the dev questions that the router learns from; none if they say nothing about who should answer."""
        options = self.options
        rows, differ = lesson.usable(range(outcomes.questions)), set(settled(outcomes, options.tie_eps))
        if options.router in ("mf", "sw_ranking"):
            return [q for q in rows if q in differ]  # ties are no battles
        # an MLP reads ties, too; if there is nothing else, only a policy that breaks them has something to teach
        return rows if differ or options.tie in ("cheapest", "reward_model") else []

    def _threshold(self, outcomes: Outcomes, held: Sequence[int], values: Sequence[Sequence[float]]) -> float | None:
        options = self.options
        if options.mode == "nway":
            return None
        if options.threshold is not None:
            return options.threshold
        known = [(q, row) for q, row in zip(held, values, strict=True) if row]
        weak, strong = ([row[q] for q, _ in known] for row in outcomes.scores)
        return calibrated([row[1] for _, row in known], weak, strong, options)

    async def _reword(self, system: TrainedRouterSystem, dev: Sequence[Example], context: Context) -> None:
        """Note how many choices on dev stay as they are when the question is reworded."""

        async def chosen(question: Question, scope: Context) -> int:
            return (await system.route(question, scope))[0]

        questions = [example.question for example in dev]
        routes = await context.each(questions, chosen, label="routing dev")
        context.note(unchanged=await unchanged(questions, routes, chosen, context))

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> TrainedRouterSystem:
        from moco_method_trained_router.fitting import FILE, load
        from moco_toolkit_training import restore_trained

        head = load(folder, self.options) if (folder / FILE).exists() else None
        trained = restore_trained(pool, state.get("trained"), folder / _MODEL)
        return TrainedRouterSystem(pool, self.options, **{**state, "trained": trained}, head=head)

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options, candidates = self.options, _writers(pool)
        if len(pool) < 2:
            return []
        out = []
        if len(candidates) < 2:
            out.append(f"needs two models that write text, the pool has {len(candidates)}; add models to the pool")
        elif options.mode == "binary" and len(candidates) != 2:
            out.append(
                f"mode: binary chooses between two models (weak, strong), the pool has {len(candidates)}; use nway"
            )
        for key in ("prices", "model_descriptions"):
            given = getattr(options, key)
            if given is not None and len(given) != len(candidates):
                out.append(f"{key}: {len(candidates)} models need as many values, got {len(given)}")
        if options.embedded:
            out += encoder_problems(pool, options.encoder)
        else:
            from moco_method_trained_router.models import base_problems

            out += base_problems(pool, options)
        try:
            reward_model(options)
        except (CapabilityError, ConfigError) as error:
            out.append(str(error))
        return out
