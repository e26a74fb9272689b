"""Cascades: ask models from cheapest to strongest, stop at the first reply that its own model is sure of.

Chen, Zaharia and Zou, "FrugalGPT", arXiv 2305.05176; Gupta et al., "Language Model Cascades: Token-level uncertainty
and beyond", arXiv 2404.10136.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Example,
    Generation,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    System,
    option,
)
from moco_method_cascade.confidence import Confidence, measure
from moco_method_cascade.pricing import Pricing, pricing
from moco_method_cascade.thresholds import Table, by_fraction, oracle, search, simulate

__all__ = ["Cascade", "CascadeOptions", "CascadeSystem"]

_CHOW = ("chow_sum", "chow_average", "chow_quantile")


@attrs.frozen(kw_only=True)
class CascadeOptions:
    """How sure a model must be, how that is measured, and how the thresholds are set."""

    confidence: Literal["chow_sum", "chow_average", "chow_quantile", "p_true", "self_report", "agreement", "scorer"] = (
        option(
            "chow_average", help="how sure a model is of its reply", paper="quantiles (LM cascades); scorer (FrugalGPT)"
        )
    )
    quantile: float = option(0.0, ge=0, le=1, help="of the tokens' log-probabilities, for chow_quantile")
    select: Literal["accept_fraction", "budget", "target", "fixed"] = option(
        "accept_fraction", help="how the thresholds are set", paper="budget (FrugalGPT)"
    )
    accept_fraction: float | tuple[float, ...] = option(
        0.5, gt=0, lt=1, help="share of the questions reaching a level that stops there; one number, or one per level"
    )
    budget: float | None = option(
        None, gt=0, help="mean cost per question for select=budget, in the unit of the prices"
    )
    target: float | None = option(
        None, gt=0, help="least dev score for select=target, as a share of the best single model's"
    )
    thresholds: float | tuple[float, ...] | None = option(
        None, help="for select=fixed: accept from this confidence on; one number, or one per level but the last"
    )
    max_depth: int | None = option(
        None, ge=2, help="most levels in use, for select=budget and target; none takes all", paper="3 (FrugalGPT)"
    )
    grid: int = option(40, ge=2, help="quantiles tried per level", paper="40, refined locally (FrugalGPT's code)")
    prices: tuple[float, ...] | None = option(
        None, ge=0, help="money per million tokens, one per level; none takes the pool's, else parameters, else tokens"
    )
    temperature: float = option(0.0, ge=0, help="sampling of the replies", paper="0.1 (FrugalGPT's code)")
    max_new_tokens: int | None = option(None, ge=1, help="reply budget; none takes the run's")
    samples: int = option(5, ge=2, help="sampled replies for confidence=agreement")
    agreement_temperature: float = option(0.7, gt=0, help="sampling of those replies")
    verify_tokens: int = option(16, ge=1, help="budget of a verdict in words, where a model cannot score")
    report: bool = option(
        True, help="answer dev at the last level too under accept_fraction, to report the whole cascade"
    )

    def __attrs_post_init__(self) -> None:
        problems = []
        if self.confidence == "scorer":
            problems.append(
                "confidence: scorer (a trained classifier) is not available yet; choose chow_average, p_true, ..."
            )
        for select, key in (("budget", "budget"), ("target", "target"), ("fixed", "thresholds")):
            if self.select == select and getattr(self, key) is None:
                problems.append(f"{key}: missing, select={select} needs it")
        if self.max_depth is not None and self.select not in ("budget", "target"):
            problems.append(f"max_depth: goes with select=budget or target, not {self.select}")
        if problems:
            raise ConfigError(problems)


@attrs.frozen(kw_only=True)
class _Step:
    """One level's reply to one question, its confidence, and what both cost."""

    reply: Generation | None
    confidence: float
    cost: float = 0.0
    check: float = 0.0


class CascadeSystem(System):
    """The pool from weak to strong, with one acceptance threshold per level but the last."""

    def __init__(self, pool: Pool, options: CascadeOptions, thresholds: Sequence[float]) -> None:
        self.pool = pool
        self.options = options
        self.thresholds = tuple(thresholds)
        self.pricing = pricing(pool, options.prices)

    def state(self) -> Mapping[str, Any]:
        # JSON has no infinities
        return {"thresholds": [str(tau) if math.isinf(tau) else tau for tau in self.thresholds]}

    async def respond(self, question: Question, context: Context) -> Reply:
        asked: list[dict[str, Any]] = []
        total = 0.0
        for level, (model, tau) in enumerate(zip(self.pool, (*self.thresholds, -math.inf), strict=True)):
            if tau == math.inf:  # never accepts, so there is nothing to ask
                continue
            try:
                step = await ask(level, model, question, context, self.options, self.pricing, check=tau > -math.inf)
            except ModelCallError as error:
                if level == len(self.pool) - 1:
                    raise
                asked.append({"model": model.name, "failed": str(error)})
                continue
            total += step.cost + step.check
            asked.append({"model": model.name, "confidence": _json(step.confidence), "cost": step.cost + step.check})
            # NaN compares false, so it defers; minus infinity as a threshold accepts unseen
            if step.reply is not None and (tau == -math.inf or step.confidence >= tau):
                meta = {"level": level + 1, "model": model.name, "levels": asked}
                return Reply.of(step.reply, **meta, cost=total, cost_unit=self.pricing.unit)
        raise ModelCallError("the last level gave no reply")  # not reached: it accepts or raises


async def ask(
    level: int,
    model: Model,
    question: Question,
    context: Context,
    options: CascadeOptions,
    prices: Pricing,
    *,
    check: bool,
) -> _Step:
    """Have one level answer with the unmodified task prompt, and measure its confidence if ``check``.

    Raises ModelCallError if there is no reply.
    """
    run = context.sampling
    sampling = attrs.evolve(
        run, temperature=options.temperature, max_new_tokens=options.max_new_tokens or run.max_new_tokens
    )
    reply = await context.generate(model, question, sampling, sample=0)
    sure = Confidence(value=math.nan)
    if check:
        sure = await measure(
            options.confidence,
            model,
            question,
            reply,
            context,
            quantile=options.quantile,
            samples=options.samples,
            sampling=attrs.evolve(sampling, temperature=options.agreement_temperature),
            verify_tokens=options.verify_tokens,
        )
    return _Step(
        reply=reply,
        confidence=sure.value,
        cost=prices.cost(level, reply.usage),
        check=prices.cost(level, sure.usage),
    )


class Cascade(Method[CascadeOptions]):
    """Ask models from weak to strong; stop at the first whose own reply is above its level's threshold."""

    Options = CascadeOptions
    level = "api"
    title = "Cascade"
    paper = "Chen et al. 2023, arXiv 2305.05176; Gupta et al. 2024, arXiv 2404.10136"

    def needs(self) -> Needs:
        kind = self.options.confidence
        optional = {"logprobs"} if kind in _CHOW else {"score"} if kind in ("p_true", "self_report") else set()
        return Needs(min_models=2, optional=frozenset(optional), check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        checks = {"agreement": options.samples, "p_true": 1, "self_report": 1}.get(options.confidence, 0) * (models - 1)
        levels = models if self._whole() else models - 1
        return Cost(fit=0 if options.select == "fixed" else dev * (levels + checks), respond=models + checks)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> CascadeSystem:
        options = self.options
        problems = self._problems(pool)
        if problems:
            raise ConfigError([f"cascade.{problem}" for problem in problems])
        if options.select == "fixed":
            return CascadeSystem(pool, options, _per_level(options.thresholds, len(pool) - 1))
        if not dev:
            raise ConfigError(
                f"cascade.select: {options.select} needs dev examples, there are none; raise the dev limit, or set "
                "select=fixed and thresholds"
            )
        table = await self._table(pool, dev, context)
        thresholds = self._thresholds(table, context)
        self._report(pool, table, thresholds, context)
        return CascadeSystem(pool, options, thresholds)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> CascadeSystem:
        return CascadeSystem(pool, self.options, [float(tau) for tau in state["thresholds"]])

    # ---------------------------------------------------------------- fitting

    def _whole(self) -> bool:
        """Whether dev is answered at the last level too."""
        return self.options.select in ("budget", "target") or self.options.report

    async def _table(self, pool: Pool, dev: Sequence[Example], context: Context) -> Table:
        """Answer dev at every level, all with the settings of test time. A failed call scores 0 and defers."""
        models = list(pool) if self._whole() else list(pool)[:-1]
        prices = pricing(pool, self.options.prices)

        async def one(example: Example, scope: Context) -> list[tuple[_Step, float]]:
            async def at(level: int, model: Model) -> tuple[_Step, float]:
                check = level < len(pool) - 1
                try:
                    step = await ask(level, model, example.question, scope, self.options, prices, check=check)
                except ModelCallError:
                    return _Step(reply=None, confidence=math.nan), 0.0
                assert step.reply is not None  # ask returns a reply or raises
                return step, (await scope.grade(example, Reply.of(step.reply))).value or 0.0

            return await scope.gather(at(level, model) for level, model in enumerate(models))

        rows = await context.each(dev, one, label="cascade on dev")
        columns = list(zip(*rows, strict=True))
        if len(models) < len(pool):
            blank = (_Step(reply=None, confidence=math.nan), math.nan)
            columns.append((blank,) * len(dev))
        return Table(
            confidence=[[step.confidence for step, _ in column] for column in columns[:-1]],
            score=[[score for _, score in column] for column in columns],
            cost=[[step.cost for step, _ in column] for column in columns],
            check=[[step.check for step, _ in column] for column in columns],
        )

    def _thresholds(self, table: Table, context: Context) -> tuple[float, ...]:
        options = self.options
        if options.select == "accept_fraction":
            fractions = _per_level(options.accept_fraction, table.levels - 1)
            thresholds, shares = by_fraction(table.confidence, fractions)
            for level, (wanted, got) in enumerate(zip(fractions, shares, strict=True), 1):
                if abs(wanted - got) > 1 / table.questions + 1e-9 and got not in (0.0,):
                    context.warn(
                        f"cascade: level {level} accepts {got:.0%} of dev instead of {wanted:.0%}, because many of its "
                        f"confidences ({options.confidence}) are equal"
                    )
                if got == 0.0:
                    context.warn(f"cascade: level {level} never gave a usable confidence on dev and is left out")
            return tuple(thresholds)
        singles = [math.fsum(row) / table.questions for row in table.score]
        if options.select == "budget":
            setting = search(table, grid=options.grid, max_depth=options.max_depth, budget=options.budget)
            if setting is None:
                least = min(math.fsum(row) / table.questions for row in table.cost)
                raise ConfigError(
                    f"cascade.budget: {options.budget:g} is below the cheapest level's {least:g}; raise it"
                )
            return setting.thresholds
        wanted = (options.target or 1.0) * max(singles)
        setting = search(table, grid=options.grid, max_depth=options.max_depth, target=wanted)
        if setting is None:
            setting = search(table, grid=options.grid, max_depth=options.max_depth, budget=math.inf)
            assert setting is not None  # every setting is within an infinite budget
            context.warn(f"cascade: no setting scores {wanted:.3f} on dev; the best one scores {setting.score:.3f}")
        return setting.thresholds

    def _report(self, pool: Pool, table: Table, thresholds: Sequence[float], context: Context) -> None:
        """Note share, score and cost per level and of the whole on dev; warn if dev contradicts the order."""
        score, cost, outcomes = simulate(table, thresholds)
        unit = pricing(pool, self.options.prices).unit
        levels = [
            {
                "model": model.name,
                "threshold": str(tau) if math.isinf(tau) else tau,
                "share": outcome.accepted / table.questions,
                "score": _json(outcome.score),
                "cost": outcome.cost / table.questions,
            }
            for model, tau, outcome in zip(pool, (*thresholds, -math.inf), outcomes, strict=True)
        ]
        note: dict[str, Any] = {"levels": levels, "cost_unit": unit}
        known = len(pool) if self._whole() else len(pool) - 1
        means = [math.fsum(row) / table.questions for row in table.score[:known]]
        note["alone"] = dict(zip(pool.names, means, strict=False))
        if self._whole():
            best, best_cost = oracle(table)
            note |= {"score": score, "cost": cost, "oracle": {"score": best, "cost": best_cost}}
        context.note(**note)
        wrong = [
            f"{pool[i].name} ({means[i]:.3f}) before {pool[i + 1].name} ({means[i + 1]:.3f})"
            for i in range(known - 1)
            if means[i] > means[i + 1]
        ]
        if wrong:
            context.warn(
                f"cascade: the pool should go from weak to strong, dev says otherwise: {'; '.join(wrong)}; "
                "reorder the pool"
            )

    # ---------------------------------------------------------------- what is asked of the pool

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options, count = self.options, len(pool) - 1
        out = []
        for key, length in (("accept_fraction", count), ("thresholds", count), ("prices", count + 1)):
            value = getattr(options, key)
            if isinstance(value, tuple) and len(value) != length:
                out.append(f"{key}: {len(pool)} levels need {length} values, got {len(value)}")
        if options.confidence in _CHOW:
            for model in list(pool)[:-1]:
                if not model.can("logprobs"):
                    out.append(
                        f"confidence: model {model.name!r} cannot return the log-probabilities of its tokens "
                        f"(capability 'logprobs'), which {options.confidence} needs of every level but the last; "
                        "choose p_true, self_report or agreement, or put the model last"
                    )
        if options.max_depth is not None and options.max_depth > len(pool):
            out.append(f"max_depth: expected at most {len(pool)}, the number of levels; got {options.max_depth}")
        return out


def _per_level(value: Any, count: int) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,) * count


def _json(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
