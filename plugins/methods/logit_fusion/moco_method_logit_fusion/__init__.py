"""Logit fusion: several models in lock-step, one token at a time from their combined scores.

The members are combined into one derived model, which answers through scheduler and cache like any other; what this module
decides is with which weights. Models with different tokenizers are fused over the union of their best strings (UniTE,
Yao et al. 2024, arXiv 2410.03777).
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
from moco_core.types import Sampling

__all__ = ["LogitFusion", "LogitFusionOptions"]

Weights = Literal["uniform", "dev", "search", "nll"] | tuple[float, ...]


def _usable_weights(value: Any) -> str | None:
    if isinstance(value, str):
        return None
    if not all(math.isfinite(w) and w >= 0 for w in value):
        return f"expected finite numbers >= 0, got {list(value)}"
    return None if sum(value) > 0 else "expected at least one weight above 0"


@attrs.frozen(kw_only=True)
class LogitFusionOptions:
    """How the members' scores are combined, and how their weights are found."""

    combine: Literal["prob", "logprob", "logit", "max"] = option(
        "logprob",
        help="prob: mean of probabilities; logprob and logit: mean of log-probabilities; max: largest probability",
        paper="prob (UniTE, GaC)",
    )
    weights: Weights = option(
        "uniform",
        check=_usable_weights,
        help="uniform; a list, one per model; dev: softmax of dev scores; search: best dev score of the fused model; nll: "
        "likelihood of the dev references",
    )
    normalise: bool = option(True, help="scale listed weights to sum 1; false only with combine=logit or logprob")
    tau_w: float = option(0.05, gt=0, help="temperature of weights=dev; near 0 it selects the best model")
    member_temperature: float | tuple[float, ...] = option(
        1.0, gt=0, help="divides each model's logits before combining; one number or one per model"
    )
    plausibility: float = option(
        0.0,
        ge=0,
        lt=1,
        help="keep tokens with at least this share of the largest probability of any model",
        paper="0.1 (CD)",
    )
    alignment: Literal["auto", "same", "unite"] = option(
        "auto", help="same: fuse over token ids; unite: over the union of top strings; auto: unite if tokenizers differ"
    )
    union_top_k: int = option(10, ge=1, help="strings per model in the union (alignment=unite)", paper="10")
    search_budget: int = option(24, ge=1, help="random weightings tried by weights=search with more than two models")

    def __attrs_post_init__(self) -> None:
        if not self.normalise and (isinstance(self.weights, str) or self.combine not in ("logit", "logprob")):
            raise ConfigError("normalise: false needs a list of weights and combine=logit or logprob")
        if self.weights == "nll" and self.alignment == "unite":
            raise ConfigError(
                "weights: nll needs one tokenizer, since it compares models token by token; use search or dev"
            )


class LogitFusion(Method[LogitFusionOptions]):
    """Fuse the next-token distributions of N models with fixed weights."""

    Options = LogitFusionOptions
    level: ClassVar[Literal["logit"]] = "logit"
    title: ClassVar[str] = "Logit fusion"
    paper: ClassVar[str] = "arXiv 2410.03777 (UniTE, for different tokenizers)"

    def needs(self) -> Needs:
        return Needs(capabilities=frozenset({"generate", "step"}), min_models=2, check=self._check)

    def _check(self, pool: Sequence[Model]) -> list[str]:
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
        if self.options.weights in ("dev", "nll"):  # nll reads every reference under every model
            return Cost(fit=models * dev, respond=1)
        if self.options.weights == "search":
            return Cost(
                fit=dev * len(_grid(models)) if models == 2 else dev * (models + 1 + self.options.search_budget)
            )
        return Cost(respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> FusedSystem:
        problems = self._check(pool)
        if problems:
            raise CapabilityError(f"logit_fusion: {problems[0]}")
        relation = decoding.report(pool).relation
        unite = self.options.alignment == "unite" or (self.options.alignment == "auto" and relation == "different")
        if unite and self.options.alignment == "auto":
            context.note(alignment="unite", reason=decoding.report(pool).first_difference())
        if isinstance(self.options.weights, tuple):
            weights = list(self.options.weights)
            if self.options.normalise:
                weights = [w / sum(weights) for w in weights]
        elif self.options.weights == "uniform":
            weights = [1 / len(pool)] * len(pool)
        elif not dev:
            raise ConfigError(f"weights: {self.options.weights} needs dev examples; use uniform or a list")
        elif self.options.weights == "dev":
            weights = await self._by_dev(pool, dev, context)
        elif self.options.weights == "search":
            weights = await self._by_search(pool, dev, context, unite)
        else:
            weights = await self._by_likelihood(pool, dev, context)
        context.note(weights=dict(zip(pool.names, weights, strict=True)))
        return FusedSystem(pool, self.options, weights, unite)

    async def _by_dev(self, pool: Pool, dev: Sequence[Example], context: Context) -> list[float]:
        means = (await context.evaluate(pool, dev, _greedy(context))).means()
        top = max(means)
        shares = [math.exp((m - top) / self.options.tau_w) for m in means]
        return [s / sum(shares) for s in shares]

    async def _by_search(self, pool: Pool, dev: Sequence[Example], context: Context, unite: bool) -> list[float]:
        n = len(pool)
        candidates = _grid(n) if n == 2 else _corners(n)
        generator = context.rng("logit_fusion", "search")
        while n > 2 and len(candidates) < n + 1 + self.options.search_budget:
            draw = [generator.expovariate(1.0) for _ in range(n)]  # a Dirichlet(1, ..., 1) point
            candidates.append([d / sum(draw) for d in draw])
        best: tuple[float, float, list[float]] | None = None
        for number, weights in enumerate(candidates):
            one = next((i for i, w in enumerate(weights) if w == 1), None)
            # a corner of the simplex is that model itself: its dev replies are in the cache already
            model = pool[one] if one is not None else fused_model(pool, self.options, weights, unite)
            score = (await context.evaluate([model], dev, _greedy(context), label=f"weights {number + 1}")).means()[0]
            context.note(step=number, weights=weights, score=score)
            distance = sum((w - 1 / n) ** 2 for w in weights)
            if best is None or (-score, distance) < (-best[0], best[1]):
                best = (score, distance, weights)
        assert best is not None
        return best[2]

    async def _by_likelihood(self, pool: Pool, dev: Sequence[Example], context: Context) -> list[float]:
        from moco_method_logit_fusion.likelihood import fit_weights, reference_scores

        temperatures = _temperatures(self.options, len(pool))
        # a plain mixture needs the reference tokens' probabilities alone
        full = self.options.combine != "prob" or bool(temperatures)
        scores = await reference_scores(pool, dev, context, full=full)
        weights, history = fit_weights(scores, self.options.combine, temperatures)
        context.note(nll_first=history[0], nll_last=history[-1], steps=len(history) - 1)
        return weights

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> FusedSystem:
        return FusedSystem(pool, self.options, list(state["weights"]), bool(state["unite"]))


class FusedSystem(System):
    """The fused model."""

    def __init__(self, pool: Pool, options: LogitFusionOptions, weights: Sequence[float], unite: bool) -> None:
        self.pool = pool
        self.options = options
        self.weights = list(weights)
        self.unite = unite
        self._model = fused_model(pool, options, weights, unite)

    @property
    def model(self) -> Model:
        """The joint model."""
        return self._model

    async def respond(self, question: Question, context: Context) -> Reply:
        generation = await context.generate(self.model, question)
        return Reply.of(generation, share=dict(generation.meta.get("share", {})))

    def state(self) -> Mapping[str, Any]:
        return {"weights": self.weights, "unite": self.unite}


def fused_model(pool: Pool, options: LogitFusionOptions, weights: Sequence[float], unite: bool) -> Model:
    """Return the model that fuses the pool; members of weight 0 are not loaded."""
    used = [i for i, w in enumerate(weights) if w > 0]
    temperatures = _temperatures(options, len(weights))
    mix = decoding.Mix(
        kind=options.combine,
        weights=tuple(weights[i] for i in used),
        temperatures=tuple(temperatures[i] for i in used) if temperatures else (),
        plausibility=options.plausibility,
    )
    models = [pool[i] for i in used]
    recipe: Any
    if unite:
        recipe = decoding.UnionRecipe.of(mix, models, k=options.union_top_k)
    else:
        recipe = decoding.JointRecipe.of(mix, models)
    return pool.derive(f"fused-{recipe.fingerprint[:8]}", recipe, models)


def _temperatures(options: LogitFusionOptions, n: int) -> tuple[float, ...]:
    """Return one temperature per member; empty if all are 1."""
    given = options.member_temperature
    values = given if isinstance(given, tuple) else (given,) * n
    return () if all(t == 1 for t in values) else values


def _corners(n: int) -> list[list[float]]:
    return [[1 / n] * n, *([float(i == j) for j in range(n)] for i in range(n))]


def _grid(n: int) -> list[list[float]]:
    return [[i / 10, 1 - i / 10] for i in range(11)] if n == 2 else _corners(n)


def _greedy(context: Context) -> Sampling:
    """Decode greedily while fitting, so that scores do not depend on luck."""
    return attrs.evolve(context.sampling, temperature=0.0)


@hookimpl
def moco_method() -> type[LogitFusion]:
    return LogitFusion
