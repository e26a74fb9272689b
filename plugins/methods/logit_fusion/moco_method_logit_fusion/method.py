"""Logit fusion: several models in lock-step, one token at a time from their combined scores.

The members are combined into one derived model, which answers through scheduler and cache like any other; what this method
decides is with which weights. Models with different tokenizers are fused over the union of their best strings (UniTE,
Yao et al. 2024, arXiv 2410.03777).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal

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
    System,
)
from moco_method_logit_fusion.fusing import fused_model
from moco_method_logit_fusion.options import Options
from moco_method_logit_fusion.weighting import by_dev, by_search, points

__all__ = ["FusedSystem", "LogitFusion"]


@attrs.frozen(eq=False, slots=False)
class FusedSystem(System):
    """The fused model: one weight per model of the pool, and whether strings are fused instead of token ids."""

    weights: Sequence[float]
    unite: bool

    @cached_property
    def model(self) -> Model:
        """The joint model."""
        return fused_model(self.pool, self.options, self.weights, self.unite)

    async def respond(self, question: Question, context: Context) -> Reply:
        generation = await context.generate(self.model, question)
        return Reply.of(generation, share=dict(generation.meta.get("share", {})))


class LogitFusion(Method[Options]):
    """Fuse the next-token distributions of N models with fixed weights."""

    Options = Options
    system = FusedSystem
    level: ClassVar[Literal["logit"]] = "logit"
    title: ClassVar[str] = "Logit fusion"
    paper: ClassVar[str] = "arXiv 2601.21257, 2410.03777"

    def needs(self) -> Needs:
        return Needs(
            capabilities=frozenset({"generate", "step"}), min_models=2, same_engine=True, check=self._problems
        )

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        """Return what is wrong with a pool, before any weight is loaded."""
        problems: list[str] = []
        for name in ("weights", "member_temperature"):
            value = getattr(self.options, name)
            if isinstance(value, tuple) and len(value) != len(pool):
                problems.append(f"{name} has {len(value)} entries, the pool has {len(pool)} models; give one per model")
        aligned = self.options.alignment == "same" or self.options.weights == "nll"
        if aligned and all(m.can("step") for m in pool):
            found = decoding.report(pool)
            if found.relation == "different":
                remedy = "use alignment=unite" if self.options.alignment == "same" else "use weights=search or dev"
                problems.append(f"{found.first_difference()}; {remedy}")
        return problems

    def cost(self, models: int, dev: int) -> Cost:
        weights = self.options.weights
        if weights in ("dev", "nll"):  # nll reads every reference under every model
            return Cost(fit=models * dev, respond=1)
        if weights == "search":
            return Cost(fit=dev * points(models, self.options.search_budget), respond=1)
        return Cost(respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> FusedSystem:
        if problems := self._problems(pool):
            raise CapabilityError(f"logit_fusion: {problems[0]}")
        found = decoding.report(pool)
        unite = self.options.alignment == "unite" or (
            self.options.alignment == "auto" and found.relation == "different"
        )
        if unite and self.options.alignment == "auto":
            context.note(alignment="unite", reason=found.first_difference())
        weights = await self._weights(pool, dev, context, unite)
        context.note(weights=dict(zip(pool.names, weights, strict=True)))
        return FusedSystem(pool, self.options, weights, unite)

    async def _weights(self, pool: Pool, dev: Sequence[Example], context: Context, unite: bool) -> list[float]:
        given = self.options.weights
        if isinstance(given, tuple):
            return [w / sum(given) for w in given] if self.options.normalise else list(given)
        if given == "uniform":
            return [1 / len(pool)] * len(pool)
        if not dev:
            raise ConfigError(f"weights: {given} needs dev examples; use uniform or a list")
        if given == "dev":
            return await by_dev(pool, self.options, dev, context)
        if given == "search":
            return await by_search(pool, self.options, dev, context, unite)
        from moco_method_logit_fusion.likelihood import likelihood_weights  # torch is imported when it is needed

        return await likelihood_weights(pool, self.options, dev, context)
