"""Switch generation: a response is written patch by patch, a switcher names the model of each patch.

Feng, Yu, Wang, Zhang, Tsvetkov and Yu 2025, "Don't Throw Away Your Pretrained Model", arXiv 2510.09913.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import (
    CAPABILITIES,
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

PROMPT = 150
"""Tokens that a switcher reads beside the answer so far: the request, the models and the question, as a guess."""
_MODEL = "switcher"


@attrs.frozen(eq=False, slots=False)
class SwitchSystem(System):
    """The pool's writers and its switcher, a member or one that was trained."""

    trained: Model | None = None

    @property
    def member(self) -> Model:
        """Who chooses if nothing was trained."""
        return self.pool.named(self.options.chooser, "switcher")

    @property
    def switcher(self) -> Model:
        return self.trained or self.member

    @property
    def writers(self) -> list[Model]:
        return [m for m in self.pool if self.options.switcher_writes or m is not self.member]

    def state(self) -> Mapping[str, Any]:
        if self.trained is None:
            return {}
        from moco_toolkit_training import kept

        return {"trained": kept(self.trained)}

    def save_files(self, folder: Path) -> None:
        if self.trained is not None:
            from moco_toolkit_training import save_trained

            save_trained(self.trained, folder / _MODEL)

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
        learnt = {"train"} if self.options.trains else set()
        judged = {"reward"} if self.options.reward_model is not None else set()
        return Needs(
            capabilities=frozenset({"generate"}),
            optional=frozenset({"step", "score"} | learnt | judged),
            min_models=2,
            check=self._problems,
        )

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        try:
            member = Pool(pool).named(self.options.chooser, "switcher")
        except ConfigError as error:
            return list(error.problems)
        if not self.options.switcher_writes and len(pool) < 3:
            return ["switcher_writes=false needs three models: a switcher and two writers; add one"]
        return self._untrainable(member) if self.options.trains else []

    def _untrainable(self, member: Model) -> list[str]:
        """Return what keeps a switcher from being trained."""
        if find_spec("moco_toolkit_training") is None:
            return [
                "switcher: training one needs moco-toolkit-training (pip install 'moco-method-switch-generation[train]')"
            ]
        if not member.can("train"):
            return [
                f"switcher_base: model {member.name!r} cannot {CAPABILITIES['train']} (capability 'train'); the transformers "
                "engine can (pip install moco-pool-transformers); or name a member as the switcher, which chooses untrained"
            ]
        try:
            _ = self.options.judge
        except (CapabilityError, ConfigError) as error:
            return [str(error)]
        return []

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        if not options.trains or not dev:
            return Cost(respond=models + 1)
        writers = models if options.switcher_writes else models - 1
        finished = math.ceil(options.rollouts / writers) * writers
        judged = finished if options.reward_model is not None else 0
        return Cost(fit=options.instances * ((1 + finished) * writers + judged), respond=models + 1)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        """One session per model that steps; one that only writes text is asked anew for every patch and every choice."""
        system = SwitchSystem(Pool(pool), self.options)
        found = self.cost(len(pool), dev)
        if self.options.trains and dev:
            found = attrs.evolve(found, **self._training(system.member, dev, sampling))
        if all(m.can("step") for m in (*system.writers, system.switcher)):
            return found
        # a patch has a token at least, and up to three more requests for what is left of a character
        longer = len(pool) + sampling.max_new_tokens * (1 + 4)
        return attrs.evolve(found, fit=found.fit * longer / (len(pool) + 1), respond=longer)

    def _training(self, member: Model, dev: int, sampling: Sampling) -> dict[str, float]:
        """Predict the training of a switcher: every instance is read in every epoch, half an answer in its prompt."""
        from moco_toolkit_training import Lora, Sft, predicted_memory

        options = self.options
        tokens = PROMPT + sampling.max_new_tokens / 2
        job = Sft(rows=[], lora=Lora(r=options.lora_r, alpha=options.lora_alpha))
        return {
            "train_tokens": options.epochs * options.instances * (1 - options.held_out) * tokens,
            "train_memory": predicted_memory(job, member),
        }

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SwitchSystem:
        if problems := self._problems(pool):
            raise CapabilityError(f"switch_generation: {problems[0]}")
        system = SwitchSystem(pool, self.options)
        if not self.options.trains:
            return system
        if not dev:
            raise ConfigError("switch_generation: needs dev examples to train a switcher; give the dataset a dev split")
        from moco_method_switch_generation.training import learn_switcher

        trained = await learn_switcher(system.member, system.writers, self.options, system.shared, dev, context)
        return attrs.evolve(system, trained=trained)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> SwitchSystem:
        if not state:
            return SwitchSystem(pool, self.options)
        from moco_toolkit_training import restore_trained

        return SwitchSystem(pool, self.options, restore_trained(pool, state["trained"], folder / _MODEL))
