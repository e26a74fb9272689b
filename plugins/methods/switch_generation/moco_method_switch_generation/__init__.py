"""Switch generation: a response is written patch by patch, a switcher names the model of each patch.

Feng, Yu, Wang, Zhang, Tsvetkov and Yu 2025, "Don't Throw Away Your Pretrained Model", arXiv 2510.09913.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, System, hookimpl
from moco_core.errors import CapabilityError, ConfigError
from moco_core.options import option, plain

__all__ = ["SwitchGeneration", "SwitchGenerationOptions"]


@attrs.frozen(kw_only=True)
class SwitchGenerationOptions:
    """Patches, and who chooses their writers."""

    patch_size: int = option(50, ge=1, help="tokens of a patch", paper="50")
    switcher: str | int = option(
        -1,
        help="the model that chooses, by name or index, zero-shot; train fits one on dev (needs the training toolkit)",
        paper="train",
    )
    switcher_writes: bool = option(True, help="whether the switcher is one of the writers too")
    force_ends: bool | None = option(
        None,
        help="give the first and the last patch to the last model; none: with three models",
        paper="with three models",
    )
    wait: bool = option(False, help="when a model ends the answer, append a cue and go on instead")
    max_waits: int = option(2, ge=0, help="how often wait does so per answer")
    wait_cue: str = option(" Wait,", help="the cue of wait", paper="Wait (s1)")
    answer_cue: str = option(
        "", help="text put before the last patch of an answer that uses its whole budget; empty is off"
    )

    def __attrs_post_init__(self) -> None:
        if self.wait and not self.wait_cue.strip():
            raise ConfigError("wait_cue: expected some text, since wait is on")


class SwitchGeneration(Method[SwitchGenerationOptions]):
    """Let a switcher hand a growing response from model to model."""

    Options = SwitchGenerationOptions
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Switch generation"
    paper: ClassVar[str] = "arXiv 2510.09913"

    def needs(self) -> Needs:
        return Needs(
            capabilities=frozenset({"generate"}),
            optional=frozenset({"step", "score"}),
            min_models=2,
            check=self._check,
        )

    def _check(self, pool: Sequence[Model]) -> list[str]:
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

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SwitchSystem:
        problems = self._check(pool)
        if problems:
            raise CapabilityError(f"switch_generation: {problems[0]}")
        return SwitchSystem(pool, self.options)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> SwitchSystem:
        return SwitchSystem(pool, self.options)


class SwitchSystem(System):
    """Writers and a switcher."""

    def __init__(self, pool: Pool, options: SwitchGenerationOptions) -> None:
        self.pool = pool
        self.options = options
        self.switcher = pool.named(options.switcher, "switcher")
        self.writers = [m for m in pool if options.switcher_writes or m is not self.switcher]

    @cached_property
    def shared(self) -> bool:
        """Whether all writers have one tokenizer, so that they exchange token ids instead of text."""
        return decoding.exchange_ids(self.writers)

    async def respond(self, question: Question, context: Context) -> Reply:
        from moco_method_switch_generation.writing import ModelSwitcher, write

        async def compute() -> dict[str, Any]:
            switcher = ModelSwitcher(self.switcher, self.writers, question, context)
            return await write(self.writers, question, self.options, self.shared, switcher, context)

        settings = {
            **plain(self.options),
            "switcher": self.switcher.fingerprint,
            # the switcher reads the descriptions of the writers
            "descriptions": [m.description for m in self.writers],
        }
        seeded = not context.sampling.greedy
        return await decoding.answer_once(
            context,
            "switch_generation",
            self.writers,
            question,
            settings,
            compute,
            seeded=seeded,
            also=[self.switcher],
        )


@hookimpl
def moco_method() -> type[SwitchGeneration]:
    return SwitchGeneration
