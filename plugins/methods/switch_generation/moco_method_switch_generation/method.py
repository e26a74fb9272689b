"""Switch generation: a response is written patch by patch, a switcher names the model of each patch.

Feng, Yu, Wang, Zhang, Tsvetkov and Yu 2025, "Don't Throw Away Your Pretrained Model", arXiv 2510.09913.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import (
    CapabilityError,
    ConfigError,
    Context,
    Cost,
    Example,
    Method,
    Model,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
)
from moco_method_switch_generation.options import Options

__all__ = ["SwitchGeneration", "SwitchSystem"]


@attrs.frozen(eq=False, slots=False)
class SwitchSystem(System):
    """The pool's writers and its switcher."""

    @property
    def switcher(self) -> Model:
        return self.pool.named(self.options.switcher, "switcher")

    @property
    def writers(self) -> list[Model]:
        return [m for m in self.pool if self.options.switcher_writes or m is not self.switcher]

    @cached_property
    def shared(self) -> bool:
        """Whether all writers have one tokenizer, so that they exchange token ids instead of text."""
        return decoding.exchange_ids(self.writers)

    async def respond(self, question: Question, context: Context) -> Reply:
        from moco_method_switch_generation.switcher import ModelSwitcher, RandomSwitcher, Switcher
        from moco_method_switch_generation.writing import write  # torch is imported when it is needed

        options, writers = self.options, self.writers
        chance = options.choice == "random"

        async def compute() -> dict[str, Any]:
            switcher: Switcher
            if chance:
                switcher = RandomSwitcher(len(writers), context.rng("switch_generation", "choice"))
            else:
                tags = options.trace == "tags"
                switcher = ModelSwitcher(self.switcher, writers, question, context, tags=tags)
            return await write(writers, question, options, self.shared, switcher, context)

        settings = options.deciding()
        if not chance:  # the switcher reads the descriptions of the writers
            settings["switcher"] = [self.switcher.fingerprint, [m.description or m.name for m in writers]]
        return await decoding.answer_once(
            context,
            "switch_generation",
            writers,
            question,
            settings,
            compute,
            seeded=chance or not context.sampling.greedy,
            also=[] if chance else [self.switcher],
        )


class SwitchGeneration(Method[Options]):
    """Let a switcher hand a growing response from model to model."""

    Options = Options
    system = SwitchSystem
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Switch generation"
    paper: ClassVar[str] = "arXiv 2510.09913"

    def needs(self) -> Needs:
        return Needs(
            capabilities=frozenset({"generate"}),
            optional=frozenset({"step", "score"}),
            min_models=2,
            check=self._problems,
        )

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        if self.options.switcher == "train":
            return [
                "switcher: training one needs the training toolkit (moco-toolkit-training); until then name a model of the pool"
            ]
        try:
            Pool(pool).named(self.options.switcher, "switcher")
        except ConfigError as error:
            return list(error.problems)
        if not self.options.switcher_writes and len(pool) < 3:
            return ["switcher_writes=false needs three models: a switcher and two writers; add one"]
        return []

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(respond=models + 1)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        """One session per model that steps; one that only writes text is asked anew for every patch and every choice."""
        system = SwitchSystem(Pool(pool), self.options)
        if all(m.can("step") for m in (*system.writers, system.switcher)):
            return self.cost(len(pool), dev)
        # a patch has a token at least, and up to three more requests for what is left of a character
        return Cost(respond=len(pool) + sampling.max_new_tokens * (1 + 4))

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SwitchSystem:
        if problems := self._problems(pool):
            raise CapabilityError(f"switch_generation: {problems[0]}")
        return SwitchSystem(pool, self.options)
