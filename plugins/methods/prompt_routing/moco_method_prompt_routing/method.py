"""In-context routing: a model of the pool reads the question and one description per model, and names who answers.

No single origin; the nearest published forms are HuggingGPT (Shen et al., arXiv 2303.17580) and routing with benchmark
data (Shnitzer et al., arXiv 2309.15789). Contextual calibration: Zhao et al., arXiv 2102.09690.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Evaluation,
    Example,
    Method,
    Model,
    Needs,
    Pool,
    Question,
    Reply,
    System,
)
from moco_core.converters import strings
from moco_method_prompt_routing.fitting import choose_fallback, choose_router, describe
from moco_method_prompt_routing.options import Options
from moco_method_prompt_routing.routing import Router, ScoringRouter, WritingRouter
from moco_toolkit_routing import Outcomes, hand_over, pricing, report

__all__ = ["PromptRouting", "PromptRoutingSystem"]


@attrs.frozen(eq=False, slots=False)
class PromptRoutingSystem(System):
    """The router's name, the candidates' descriptions, and which candidate answers if the choice cannot be read."""

    router: str
    descriptions: tuple[str, ...] = attrs.field(converter=strings)
    fallback: int

    def __attrs_post_init__(self) -> None:
        self.pool.named(self.router, "prompt_routing.router")

    @cached_property
    def candidates(self) -> tuple[Model, ...]:
        """The models that may answer."""
        options: Options = self.options
        return options.candidates(self.pool, self.pool.named(self.router))

    @cached_property
    def asked(self) -> Router:
        """The router, as it is asked."""
        model = self.pool.named(self.router)
        kind = ScoringRouter if self.options.scores(model) else WritingRouter
        return kind(model=model, descriptions=self.descriptions, options=self.options)

    @property
    def model(self) -> Model | None:
        return self.candidates[0] if len(self.candidates) == 1 else None

    async def respond(self, question: Question, context: Context) -> Reply:
        if self.model is not None:
            return Reply.of(await context.generate(self.model, question), model=self.model.name, parsed=True)
        route = await self.asked.choose(question, context)
        meta: dict[str, Any] = {"parsed": route.choice is not None}
        if route.shares:
            meta["shares"] = {m.name: share for m, share in zip(self.candidates, route.shares, strict=True)}
        if route.mass is not None:
            meta["label_mass"] = route.mass
        if route.reason:
            meta["reason"] = route.reason
        choice = self.fallback if route.choice is None else route.choice
        return await hand_over(self.candidates, choice, self.fallback, question, context, **meta)


class PromptRouting(Method[Options]):
    """One model reads the question and a description of every candidate; only the one it names is run."""

    Options = Options
    system = PromptRoutingSystem
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Prompt routing"
    paper: ClassVar[str] = "arXiv 2303.17580, 2309.15789"

    def needs(self) -> Needs:
        return Needs(optional=() if self.options.decode == "generate" else ("score",), check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        candidates = models - (not options.router_answers)
        if candidates <= 1:
            return Cost(fit=models * dev if candidates < models and options.evaluates else 0, respond=1)
        routing = candidates if options.order == "cyclic_average" else 1
        if options.calibrate:
            routing *= 2
        fit = models * dev if options.evaluates else 0
        fit += candidates if options.model_descriptions is None and options.describe == "self" else 0
        fit += dev * (routing + 1) if options.check_dev else 0
        return Cost(fit=fit, respond=routing + 1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> PromptRoutingSystem:
        options = self.options
        if len(pool) == 1:
            return PromptRoutingSystem(pool, options, pool[0].name, [pool[0].name], 0)
        evaluation: Evaluation | None = None
        if options.evaluates:
            if not dev:
                raise ConfigError(
                    "prompt_routing: router, fallback, describe or check_dev asks for dev scores and there are no dev "
                    "examples; raise the dev limit, or name the router (prompt_routing.router)"
                )
            evaluation = await context.evaluate(pool, dev)
            context.note(dev_scores=dict(zip(evaluation.names, evaluation.means(), strict=True)))
        router = choose_router(pool, options, evaluation)
        if problems := self._silent_fallback(pool, router):
            raise ConfigError([f"prompt_routing.{problem}" for problem in problems])
        if options.calibrate and not options.scores(router):
            context.warn(
                f"prompt_routing: the router {router.name!r} writes its choice, so that calibrate does nothing"
            )
        candidates = options.candidates(pool, router)
        descriptions = await describe(candidates, pool, dev, options, evaluation, context)
        fallback = choose_fallback(pool, candidates, router, options, evaluation)
        context.note(
            router=router.name, descriptions=dict(zip((m.name for m in candidates), descriptions, strict=True))
        )
        system = PromptRoutingSystem(pool, options, router.name, descriptions, fallback)
        if options.check_dev and evaluation is not None:
            await self._check(system, dev, evaluation, context)
        return system

    async def _check(
        self, system: PromptRoutingSystem, dev: Sequence[Example], evaluation: Evaluation, context: Context
    ) -> None:
        """Note what routing is worth on dev. Warns where the best single model is better, and changes nothing."""

        async def one(example: Example, scope: Context) -> int:
            reply = await system.respond(example.question, scope)
            return system.pool.names.index(str(reply.meta["model"]))

        routes = await context.each(dev, one, label="routing dev")
        outcomes = Outcomes.of(evaluation, dev, pricing(system.pool, None))
        found = report(outcomes, routes)
        context.note(routing=found)
        if found["routed"] < found["best_single"]:
            context.warn(
                f"prompt_routing: on dev, routing scores {found['routed']:.3f} and the best single model "
                f"({found['best_single_model']}) {found['best_single']:.3f}"
            )

    # ---------------------------------------------------------------- what is asked of the pool

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options, known = self.options, Pool(pool)
        if len(pool) < 2:
            return []
        out: list[str] = []
        for key in ("router", "fallback"):
            wanted = getattr(options, key)
            if wanted not in ("best_dev", "router"):
                try:
                    known.named(wanted, key)
                except ConfigError as error:
                    out.append(str(error))
        if out:
            return out
        router = None if options.router == "best_dev" else known.named(options.router)
        if options.decode == "constrained":
            able = [router] if router is not None else list(known)
            if not any(model.can("score") for model in able):
                who = f"the router {router.name!r}" if router is not None else "no model of the pool"
                cannot = "cannot score" if router is not None else "can score"
                out.append(
                    f"{who} {cannot} continuations (capability 'score'); choose another router or decode=generate"
                )
        count, given = len(pool) - (not options.router_answers), options.model_descriptions
        if given is not None and len(given) != count:
            out.append(f"model_descriptions: {count} models to choose from need as many descriptions, got {len(given)}")
        return out + (self._silent_fallback(known, router) if router is not None else [])

    def _silent_fallback(self, pool: Pool, router: Model) -> list[str]:
        """Say so if the fallback is a router that only routes; with router=best_dev that is known once dev is answered."""
        options = self.options
        if options.router_answers or options.fallback in ("router", "best_dev"):
            return []
        if pool.named(options.fallback) is not router:
            return []
        return ["fallback: the router does not answer here (router_answers=false); name another model"]
