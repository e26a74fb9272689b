"""The single model as a system: what every collaboration is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from moco_core.context import Context
from moco_core.methods import Cost, Method, System
from moco_core.models import Model, Pool
from moco_core.options import option
from moco_core.types import Example, Question, Reply


@attrs.frozen(kw_only=True)
class Options:
    """Which model answers."""

    model: str | int = option(0, help="name or index of the model")


class SingleSystem(System):
    """One model, asked once with the run's decoding settings."""

    @property
    def model(self) -> Model:
        return self.pool.named(self.options.model, "single.model")

    async def respond(self, question: Question, context: Context) -> Reply:
        return Reply.of(await context.generate(self.model, question))


class Single(Method[Options]):
    """One model of the pool, alone."""

    Options = Options
    system = SingleSystem
    level = "api"
    title = "single model"

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SingleSystem:
        return SingleSystem(pool, self.options)
