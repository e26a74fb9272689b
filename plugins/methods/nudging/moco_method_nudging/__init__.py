"""Nudging: a base model writes; where it is unsure, a small aligned model inserts a few words.

Fei, Razeghi and Singh 2024, "Nudging: Inference-time Alignment of LLMs via Guided Decoding", arXiv 2410.09300 (ACL 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, System, hookimpl
from moco_core.errors import ConfigError
from moco_core.options import option, plain

__all__ = ["Nudging", "NudgingOptions"]


@attrs.frozen(kw_only=True)
class NudgingOptions:
    """When the nudging model speaks, and for how long."""

    gamma: float = option(
        0.4,
        gt=0,
        le=1,
        help="the base model goes on while its top probability is at least this",
        paper="0.4 (code: 0.3)",
    )
    nudge_tokens: int = option(16, ge=1, help="tokens the nudging model drafts at a time", paper="16")
    base_chunk: int = option(16, ge=1, help="base tokens per call; changes the speed, never the answer", paper="16")
    max_rounds: int = option(150, ge=1, help="nudges after which an answer ends", paper="150")
    temperature: float = option(0.0, ge=0, help="of both models", paper="0")
    agreement_rule: bool = option(
        True, help="the base model also takes over where it predicts the nudging model's next word", paper="true"
    )
    base_eos: Literal["defer", "stop"] = option(
        "defer", help="the base model's end token: let the nudging model decide, or end the answer", paper="defer"
    )
    base_prompt: Literal["plain", "chat"] = option(
        "plain", help="what the base model reads: the bare text, or its chat template", paper="plain"
    )
    plain_template: str = option(
        "Question: {question}\nAnswer:",
        check=lambda text: None if "{question}" in text else "expected {question} in it",
        help="the text of base_prompt=plain",
    )
    base: str | int = option(0, help="base model, by name or index")
    nudging: str | int = option(1, help="nudging model, by name or index")
    tune: bool = option(False, help="choose gamma and the nudging model on dev")
    gamma_grid: tuple[float, ...] = option((0.2, 0.3, 0.4, 0.5), gt=0, le=1, help="values of gamma that tune tries")
    candidates: tuple[str | int, ...] = option(
        (), help="nudging models that tune tries; all but the base if none are named"
    )


class Nudging(Method[NudgingOptions]):
    """Let a small aligned model guide a large base model."""

    Options = NudgingOptions
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Nudging"
    paper: ClassVar[str] = "arXiv 2410.09300"

    def needs(self) -> Needs:
        return Needs(
            capabilities=frozenset({"generate"}),
            optional=frozenset({"step", "logprobs"}),
            min_models=2,
            check=self._check,
        )

    @property
    def _named(self) -> dict[str, str | int]:
        return {"base": self.options.base, "nudging": self.options.nudging}

    def _check(self, pool: Sequence[Model]) -> list[str]:
        if len(pool) < 2:
            return []  # that there are too few is said already
        if problems := decoding.role_problems(pool, self._named):
            return problems
        base = pool[self._roles(pool)[0]]
        if base.can("step"):
            return []
        if not base.can("logprobs"):
            return [
                f"model {base.name!r} can neither advance token by token nor return the log-probabilities of its tokens "
                "(capability 'step' or 'logprobs'), and the base model needs one of them; use an engine or server that "
                "returns log-probabilities, or the transformers engine (pip install moco-pool-transformers)"
            ]
        if self.options.temperature > 0:
            return [
                f"temperature: model {base.name!r} only writes text, whose log-probabilities are those of its best tokens "
                "with temperature=0 alone; use that, or the transformers engine (pip install moco-pool-transformers)"
            ]
        return []

    def _roles(self, pool: Sequence[Model]) -> tuple[int, int]:
        return decoding.two_roles(pool, self._named)

    def _tuned(self, models: int) -> int:
        return len(self.options.gamma_grid) * (len(self.options.candidates) or models - 1)

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=2 * self._tuned(models) * dev if self.options.tune else 0, respond=2)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> NudgingSystem:
        base, nudging = self._roles(pool)
        best = (self.options.gamma, nudging)
        if self.options.tune:
            if not dev:
                raise ConfigError("tune: needs dev examples; set tune=false")
            best = await self._tune(pool, base, best, dev, context)
        return NudgingSystem(pool, self.options, base, best[1], best[0])

    async def _tune(
        self, pool: Pool, base: int, configured: tuple[float, int], dev: Sequence[Example], context: Context
    ) -> tuple[float, int]:
        named = [list(pool).index(pool.named(c, "candidates")) for c in self.options.candidates]
        candidates = [i for i in named or range(len(pool)) if i != base]
        best, top = configured, -float("inf")
        # ascending gamma: equal scores stay with fewer nudges
        for gamma in sorted(self.options.gamma_grid):
            for nudging in candidates:
                system = NudgingSystem(pool, self.options, base, nudging, gamma)
                label = f"gamma {gamma:g}, {pool[nudging].name}"
                mean = await decoding.mean_score(system, dev, context, label=label)
                context.note(gamma=gamma, nudging=pool[nudging].name, score=mean)
                if mean > top:
                    best, top = (gamma, nudging), mean
        return best

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> NudgingSystem:
        return NudgingSystem(pool, self.options, state["base"], state["nudging"], state["gamma"])


class NudgingSystem(System):
    """A base model and its nudging model."""

    def __init__(self, pool: Pool, options: NudgingOptions, base: int, nudging: int, gamma: float) -> None:
        self.pool = pool
        self.options = options
        self.base, self.nudging, self.gamma = base, nudging, gamma

    def state(self) -> Mapping[str, Any]:
        return {"base": self.base, "nudging": self.nudging, "gamma": self.gamma}

    @cached_property
    def shared(self) -> bool:
        """Whether the two models have one tokenizer, so that they exchange token ids instead of text."""
        return decoding.exchange_ids([self.pool[self.base], self.pool[self.nudging]])

    async def respond(self, question: Question, context: Context) -> Reply:
        from moco_method_nudging.writing import settings, write

        models = [self.pool[self.base], self.pool[self.nudging]]
        sampling = settings(self.options, context)

        async def compute() -> dict[str, Any]:
            return await write(models, question, self.options, self.gamma, sampling, self.shared, context)

        return await decoding.answer_once(
            context,
            "nudging",
            models,
            question,
            {**plain(self.options), "gamma": self.gamma, "base_chunk": None, "base": 0, "nudging": 1, "tune": None},
            compute,
            seeded=not sampling.greedy,
            sampling=sampling,
        )


@hookimpl
def moco_method() -> type[Nudging]:
    return Nudging
