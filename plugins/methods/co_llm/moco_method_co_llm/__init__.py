"""Co-LLM: for every token a learnt deferral head decides whether the base model or an assistant writes it.

Shen, Lang, Wang, Kim and Sontag 2024, "Learning to Decode Collaboratively with Multiple Language Models", arXiv 2403.03870
(ACL 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, System, hookimpl
from moco_core.errors import CapabilityError, ConfigError
from moco_core.options import option
from moco_core.types import digest

__all__ = ["CoLLM", "CoLLMOptions"]


@attrs.frozen(kw_only=True)
class CoLLMOptions:
    """How the deferral head is trained, and when it defers."""

    deferral_threshold: float | None = option(
        None, ge=0, le=1, help="defer if sigmoid(g.h) is above this; none: calibrated on held-out dev", paper="tuned"
    )
    calibration: Literal["score", "fraction", "youden"] = option(
        "score",
        help="how the threshold is found: best dev score over quantiles, a target share of deferrals, or the ROC optimum",
        paper="fraction, youden (code)",
    )
    target_fraction: float = option(0.2, ge=0, le=1, help="share of tokens to defer (calibration=fraction)")
    quantiles: int = option(10, ge=2, help="thresholds tried by calibration=score")
    held_out: float = option(0.25, gt=0, lt=1, help="share of dev kept for calibration")
    targets: Literal["auto", "gold", "assistant"] = option(
        "auto",
        help="texts to learn from: references, assistant replies that the metric accepts, or (auto) the latter if any",
        paper="gold",
    )
    train: Literal["head", "lora", "full"] = option(
        "head",
        help="what is trained: the head alone, or the base model with it (needs the training toolkit)",
        paper="full",
    )
    init: Literal["a", "b", "none"] = option(
        "a", help="weak labels: a: only the assistant is right; b: the base is wrong; none: joint loss alone", paper="a"
    )
    init_pos_weight: float = option(8.0, gt=0, help="weight of deferral labels", paper="8")
    learning_rate: float = option(1e-2, gt=0, help="of the head", paper="2e-5 (head and base together)")
    epochs: int = option(
        60, ge=1, help="passes over the cached positions, for labels and joint loss each", paper="1, 2"
    )
    batch: int = option(128, ge=1, help="positions per step", paper="128 sequences")
    warmup_ratio: float = option(
        0.04, ge=0, le=1, help="share of the steps over which the learning rate rises", paper="0.04"
    )
    max_seq_length: int = option(
        2048, ge=8, help="longest prompt plus target in tokens; others are left out", paper="2048"
    )
    strategy: Literal["defer", "compose"] = option(
        "defer", help="defer: one model writes the token; compose: argmax of the mixture of both", paper="defer"
    )
    draft_len: int = option(16, ge=1, help="base tokens per call; changes the speed, never the answer", paper="10")
    threshold_warmup: Literal["none", "linear", "cosine", "exponential"] = option(
        "none", help="let the threshold fall from 1 to its value over the first tokens", paper="none"
    )
    warmup_tokens: int = option(15, ge=1, help="tokens over which it falls", paper="15")
    base: str | int = option(0, help="base model, by name or index")
    assistant: str | int = option(1, help="assistant model, by name or index")


class CoLLM(Method[CoLLMOptions]):
    """Defer single tokens to an assistant, by a learnt head on the base model's hidden state."""

    Options = CoLLMOptions
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Co-LLM"
    paper: ClassVar[str] = "arXiv 2403.03870"

    def needs(self) -> Needs:
        return Needs(
            capabilities=frozenset({"generate", "step", "hidden"}),
            min_models=2,
            check=self._check,
        )

    @property
    def _named(self) -> dict[str, str | int]:
        return {"base": self.options.base, "assistant": self.options.assistant}

    def _check(self, pool: Sequence[Model]) -> list[str]:
        if self.options.train != "head":
            return [
                f"train: {self.options.train} trains the base model, which needs the training toolkit "
                "(moco-toolkit-training); use train=head, which keeps it frozen"
            ]
        if len(pool) < 2:
            return []  # that there are too few is said already
        if problems := decoding.role_problems(pool, self._named):
            return problems
        used = [pool[i] for i in self._roles(pool)]
        if not all(m.can("step") for m in used):
            return []  # that, too
        found = decoding.report(used)
        if found.relation == "different":
            return [f"{found.first_difference()}; choose models of one family, or nudging, which exchanges text"]
        return []

    def _roles(self, pool: Sequence[Model]) -> tuple[int, int]:
        return decoding.two_roles(pool, self._named)

    def cost(self, models: int, dev: int) -> Cost:
        calibrated = self.options.deferral_threshold is None and self.options.calibration == "score"
        held = math.ceil(self.options.held_out * dev)
        return Cost(fit=3 * dev + (2 * (self.options.quantiles + 2) * held if calibrated else 0), respond=2)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> CoLLMSystem:
        o = self.options
        problems = self._check(pool)
        if problems:
            raise CapabilityError(f"co_llm: {problems[0]}")
        if not dev:
            raise ConfigError("co_llm: needs dev examples to train its deferral head; give the dataset a dev split")
        from moco_method_co_llm.fitting import fit_head

        base, assistant = self._roles(pool)
        head, eta = await fit_head(pool, base, assistant, o, dev, context)
        return CoLLMSystem(pool, o, base, assistant, head, eta)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> CoLLMSystem:
        from safetensors.torch import load_file

        head = load_file(str(folder / "head.safetensors"))["head"]
        return CoLLMSystem(pool, self.options, state["base"], state["assistant"], head.tolist(), state["threshold"])


class CoLLMSystem(System):
    """Base, assistant, deferral head g (a list of H numbers) and threshold."""

    def __init__(
        self, pool: Pool, options: CoLLMOptions, base: int, assistant: int, head: Sequence[float], threshold: float
    ) -> None:
        self.pool = pool
        self.options = options
        self.base, self.assistant = base, assistant
        self.head = list(head)
        self.threshold = threshold

    def state(self) -> Mapping[str, Any]:
        return {"base": self.base, "assistant": self.assistant, "threshold": self.threshold}

    def save_files(self, folder: Path) -> None:
        import torch
        from safetensors.torch import save_file

        save_file({"head": torch.tensor(self.head)}, str(folder / "head.safetensors"))

    async def respond(self, question: Question, context: Context) -> Reply:
        from moco_method_co_llm.writing import write

        models = [self.pool[self.base], self.pool[self.assistant]]

        async def compute() -> dict[str, Any]:
            return await write(models, question, self.options, self.head, self.threshold, context)

        settings = {
            "head": digest([float(x) for x in self.head]),
            "threshold": self.threshold,
            "strategy": self.options.strategy,
            "warmup": [self.options.threshold_warmup, self.options.warmup_tokens],
        }
        seeded = not context.sampling.greedy
        return await decoding.answer_once(context, "co_llm", models, question, settings, compute, seeded=seeded)


@hookimpl
def moco_method() -> type[CoLLM]:
    return CoLLM
