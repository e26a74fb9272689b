"""Co-LLM: for every token a learnt deferral head decides whether the base model or an assistant writes it.

Shen, Lang, Wang, Kim and Sontag 2024, "Learning to Decode Collaboratively with Multiple Language Models", arXiv 2403.03870
(ACL 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    digest,
)
from moco_method_co_llm.options import Options

__all__ = ["CoLLM", "CoLLMSystem"]

_FILE = "head.safetensors"
_BASE = "base"
PROMPT = 150
"""Tokens of a rendered question, as a guess for what a plan says."""


@attrs.frozen(eq=False, slots=False)
class CoLLMSystem(System):
    """The pool's indices of base and assistant, the threshold, the deferral head g (H numbers, kept in a file), and the base
    model that was trained with it, if it was.
    """

    base: int
    assistant: int
    threshold: float
    head: Sequence[float]
    trained: Model | None = None

    @property
    def models(self) -> list[Model]:
        """Who writes: base and assistant."""
        return [self.trained or self.pool[self.base], self.pool[self.assistant]]

    def state(self) -> Mapping[str, Any]:
        state: dict[str, Any] = {"base": self.base, "assistant": self.assistant, "threshold": self.threshold}
        if self.trained is not None:
            from moco_toolkit_training import kept

            state["trained"] = kept(self.trained)
        return state

    def save_files(self, folder: Path) -> None:
        import torch
        from safetensors.torch import save_file

        save_file({"head": torch.tensor(self.head)}, str(folder / _FILE))
        if self.trained is not None:
            from moco_toolkit_training import save_trained

            save_trained(self.trained, folder / _BASE)

    async def respond(self, question: Question, context: Context) -> Reply:
        from moco_method_co_llm.writing import write  # torch is imported when it is needed

        models = self.models

        async def compute() -> dict[str, Any]:
            return await write(models, question, self.options, self.head, self.threshold, context)

        settings = {
            "head": digest(
                [round(x, 6) for x in self.head]
            ),  # float32 in a file, so that a restored system finds its replies
            "threshold": self.threshold,
            "strategy": self.options.strategy,
            "warmup": [self.options.threshold_warmup, self.options.warmup_tokens],
        }
        seeded = not context.sampling.greedy
        return await decoding.answer_once(context, "co_llm", models, question, settings, compute, seeded=seeded)


class CoLLM(Method[Options]):
    """Defer single tokens to an assistant, by a learnt head on the base model's hidden state."""

    Options = Options
    system = CoLLMSystem
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Co-LLM"
    paper: ClassVar[str] = "arXiv 2403.03870"

    def needs(self) -> Needs:
        return Needs(
            capabilities=frozenset({"generate"}),
            optional=frozenset({"step", "hidden"} | ({"train"} if self.options.train != "head" else set())),
            min_models=2,
            check=self._problems,
        )

    def _roles(self, pool: Sequence[Model]) -> tuple[int, int]:
        return decoding.two_roles(pool, {"base": self.options.base, "assistant": self.options.assistant})

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        if len(pool) < 2:
            return []  # that there are too few is said already
        try:
            base, assistant = (pool[i] for i in self._roles(pool))
        except ConfigError as error:
            return list(error.problems)
        missing = [
            f"model {model.name!r} cannot {CAPABILITIES[name]} (capability {name!r}), which the {role} model must; "
            f"`moco list pool --can {name}` names the pools whose models can"
            for role, model, names in (("base", base, ("step", "hidden")), ("assistant", assistant, ("step",)))
            for name in names
            if not model.can(name)
        ]
        if missing:
            return missing
        found = decoding.report([base, assistant])
        if found.relation == "different":
            return [f"{found.first_difference()}; choose models of one family, or nudging, which exchanges text"]
        return self._untrainable(base) if self.options.train != "head" else []

    def _untrainable(self, base: Model) -> list[str]:
        """Return what keeps the base model from being trained."""
        train = self.options.train
        if find_spec("moco_toolkit_training") is None:
            return [
                f"train: {train} needs moco-toolkit-training (pip install 'moco-method-co-llm[train]'); or use train=head, "
                "which keeps the base model as it is"
            ]
        if not base.can("train"):
            return [
                f"train: model {base.name!r} cannot {CAPABILITIES['train']} (capability 'train'), which train={train} needs; "
                "the transformers engine can (pip install moco-pool-transformers); or use train=head, which keeps it as it is"
            ]
        return []

    def cost(self, models: int, dev: int) -> Cost:
        o = self.options
        held = max(1, math.ceil(o.held_out * dev)) if dev else 0
        calibrated = o.deferral_threshold is None and o.calibration == "score"
        asked = {"gold": 0, "either": 2}.get(o.targets, 1)  # replies to learn from; both models then read each of them
        read = 2 * max(1, asked)
        again = read * held if o.train != "head" else 0  # held-out texts are read by the trained base, too
        return Cost(fit=(asked + read) * dev + again + (2 * (o.quantiles + 1) * held if calibrated else 0), respond=2)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        found, o = self.cost(len(pool), dev), self.options
        if o.train == "head" or not dev:
            return found
        from moco_toolkit_training import Lora, Sft, predicted_memory

        texts = (dev - max(1, math.ceil(o.held_out * dev))) * (2 if o.targets == "either" else 1)
        job = Sft(
            rows=[],
            lora=Lora(r=o.lora_r, alpha=o.lora_alpha) if o.train == "lora" else None,
            batch=o.base_batch,
            max_length=min(o.max_seq_length, PROMPT + sampling.max_new_tokens),
        )
        return attrs.evolve(
            found,
            train_tokens=o.base_epochs * texts * (PROMPT + sampling.max_new_tokens / 2),
            train_memory=predicted_memory(job, pool[self._roles(pool)[0]]),
        )

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> CoLLMSystem:
        o = self.options
        if problems := self._problems(pool):
            raise CapabilityError(f"co_llm: {problems[0]}")
        if not dev:
            raise ConfigError("co_llm: needs dev examples to train its deferral head; give the dataset a dev split")
        from moco_method_co_llm.fitting import calibrate, fit_head, fit_with_base, split

        base, assistant = self._roles(pool)
        models, trained = [pool[base], pool[assistant]], None
        if o.train == "head":
            found = await fit_head(models, o, dev, context)
        else:
            trained, found = await fit_with_base(models, o, dev, context)

        def system(threshold: float) -> CoLLMSystem:
            return CoLLMSystem(pool, o, base, assistant, threshold, found["head"], trained)

        thresholds = found["thresholds"] if o.deferral_threshold is None else [o.deferral_threshold]
        eta = thresholds[0]
        if len(thresholds) > 1:
            held = split(dev, o.held_out)[1]
            eta = await calibrate({t: system(t) for t in thresholds}, pool[assistant].name, held, context)
        shares = dict(zip(found["thresholds"], found["shares"], strict=True))
        context.note(threshold=eta, deferred_positions=shares.get(eta))
        return system(eta)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> CoLLMSystem:
        from safetensors.torch import load_file

        fields = {**state, "head": load_file(str(folder / _FILE))["head"].tolist()}
        if state.get("trained"):
            from moco_toolkit_training import restore_trained

            fields["trained"] = restore_trained(pool, state["trained"], folder / _BASE)
        return CoLLMSystem(pool, self.options, **fields)
