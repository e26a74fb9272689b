"""Controls: is it collaboration, or only more tries; is it what was learnt, or would chance have done.

Self-MoA: Li et al., arXiv 2502.00674. Equal compute: arXiv 2605.01566.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import attrs

from moco_core import ConfigError, Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, Sampling, System
from moco_method_control.budget import choose, prices, sample, spent, warmed
from moco_method_control.options import Options
from moco_method_control.views import Placebo, Sampled, shuffled

__all__ = ["Control", "ControlSystem"]

REFERENCE = "reference"
"""The role of work that only fixes a budget: no part of what the control itself costs."""


@attrs.frozen(eq=False, slots=False)
class ControlSystem(System):
    """The system that is controlled, as it was fitted, and the name of the best single model."""

    inner: System
    best: str

    async def respond(self, question: Question, context: Context) -> Reply:
        options: Options = self.options
        sampling = warmed(context.sampling, options.temperature)
        if options.kind == "self":
            return await self.inner.respond(question, cast(Context, Sampled(context, sampling)))
        if options.kind == "placebo":
            return await self.inner.respond(question, context)
        scope = context.on(question).role(REFERENCE)
        await self.inner.respond(question, scope)
        listed = prices(self.pool, [*{c.model for c in scope.calls}, self.best])
        budget = spent(scope.calls, listed)
        replies, cost = await sample(
            context,
            self.pool.named(self.best),
            question,
            budget,
            listed=listed,
            sampling=sampling,
            most=options.max_samples,
        )
        reply, answers = choose(context, question, replies)
        meta = {
            "budget": budget,
            "spent": cost,
            "unit": "money" if listed else "tokens",
            "samples": len(replies),
            "answers": [a.key for a in answers],
        }
        return attrs.evolve(reply, meta=meta)

    def save_files(self, folder: Path) -> None:
        self.inner.save_files(folder)


class Control(Method[Options]):
    """A control of another method, fitted and asked like any system."""

    Options = Options
    system = ControlSystem
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Control"
    paper: ClassVar[str] = "arXiv 2502.00674, 2605.01566"

    @property
    def inner(self) -> Method[Any]:
        method: Method[Any] = self.options.method.instance
        return method

    def needs(self) -> Needs:
        needs = self.inner.needs()
        if self.options.kind == "placebo":
            return needs
        if self.options.kind == "equal_budget":
            return attrs.evolve(needs, capabilities=needs.capabilities | {"generate"})
        return Needs(optional=needs.declared, check=self._self_problems)

    def _self_problems(self, pool: Sequence[Model]) -> list[str]:
        found = (self.inner.needs().problems(_copies(model, len(pool))) for model in pool)
        return list(dict.fromkeys(f"copies of one model: {problem}" for problems in found for problem in problems))

    def cost(self, models: int, dev: int) -> Cost:
        return self._with_dev(self.inner.cost(models, dev), models, dev)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        return self._with_dev(self.inner.cost_on(pool, dev, sampling), len(pool), dev)

    def _with_dev(self, cost: Cost, models: int, dev: int) -> Cost:
        """The dev scores of all models are asked for too, and shared with the single models' runs."""
        respond = cost.respond * (2 if self.options.kind == "equal_budget" else 1)  # its own, and the method's
        return Cost(fit=cost.fit + models * dev, respond=respond)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> ControlSystem:
        if not dev:
            raise ConfigError("control: which single model is best is told by dev examples, and there are none; raise dev")
        evaluation = await context.evaluate(pool, dev)
        best = pool[evaluation.best()]
        context.note(best=best.name, control=self.options.kind)
        if self.options.kind == "self":
            view = cast(Context, Sampled(context, warmed(context.sampling, self.options.temperature)))
            inner = await self.inner.fit(_copies(best, len(pool)), dev, view)
        elif self.options.kind == "placebo":
            if not self.inner.learns():
                context.warn(f"control: {self.options.method.name} learns nothing from dev: its placebo is the method itself")
            marginals = [s for row in evaluation.scores for s in row if s is not None]
            view = cast(Context, Placebo(context, marginals, {e.id: e for e in dev}))
            inner = await self.inner.fit(pool, shuffled(dev, context.rng("placebo")), view)
        else:
            inner = await self.inner.fit(pool, dev, context.role(REFERENCE))
        return ControlSystem(pool, self.options, inner, best.name)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> System:
        models = _copies(pool.named(state["best"]), len(pool)) if self.options.kind == "self" else pool
        return super().restore(pool, {**state, "inner": self.inner.restore(models, state["inner"], folder)}, folder)


def _copies(model: Model, count: int) -> Pool:
    """Return as many copies of a model, which sample independently; the first is the model itself."""
    copies = (attrs.evolve(model, name=f"{model.name}#{i + 1}", copy=model.copy + i) for i in range(1, count))
    return Pool([model, *copies])
