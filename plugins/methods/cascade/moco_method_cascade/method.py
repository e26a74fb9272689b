"""Cascades: ask models from cheapest to strongest, stop at the first reply that its own model is sure of.

Chen, Zaharia and Zou, "FrugalGPT", arXiv 2305.05176; Gupta et al., "Language Model Cascades: Token-level uncertainty
and beyond", arXiv 2404.10136.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Example,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
    build,
)
from moco_method_cascade.asking import Step, ask
from moco_method_cascade.fitting import Fitted, fit, levels_of
from moco_method_cascade.head import Head
from moco_method_cascade.options import CHOW, Options, per_level
from moco_toolkit_routing import Pricing, pricing

__all__ = ["Cascade", "CascadeSystem"]


def _thresholds(saved: Sequence[float | str]) -> tuple[float, ...]:
    return tuple(float(tau) for tau in saved)


def _heads(saved: Sequence[Any]) -> tuple[Head | None, ...]:
    return tuple(build(Head, h, "heads") if isinstance(h, Mapping) else h for h in saved)


@attrs.frozen(eq=False, slots=False)
class CascadeSystem(System):
    """The pool's writers from weak to strong, with one acceptance threshold per level but the last.

    ``heads`` has one deferral head per such level, or is empty; so have ``scorers`` models, whose files are saved.
    """

    thresholds: tuple[float, ...] = attrs.field(converter=_thresholds)
    heads: tuple[Head | None, ...] = attrs.field(default=(), converter=_heads)
    scorers: tuple[Model | None, ...] = ()

    @cached_property
    def levels(self) -> Sequence[Model]:
        """Who is asked, in this order: a member that writes no text (an encoder for the scorer, say) is no level."""
        return levels_of(self.pool)

    @cached_property
    def pricing(self) -> Pricing:
        """What calls of the levels cost."""
        return pricing(self.levels, self.options.prices)

    def state(self) -> Mapping[str, Any]:
        state = dict(System.state(attrs.evolve(self, scorers=())))
        # JSON has no infinities
        state["thresholds"] = [str(tau) if math.isinf(tau) else tau for tau in self.thresholds]
        del state["scorers"]
        if self.scorers:
            from moco_toolkit_training import kept

            state["scorers"] = [kept(scorer) for scorer in self.scorers]
        return state

    def save_files(self, folder: Path) -> None:
        for level, scorer in enumerate(self.scorers):
            if scorer is not None:
                from moco_toolkit_training import save_trained

                save_trained(scorer, folder / f"scorer{level}")

    async def respond(self, question: Question, context: Context) -> Reply:
        asked: list[dict[str, Any]] = []
        total = 0.0
        deepest: tuple[int, Step] | None = None
        failure: ModelCallError | None = None
        for level, (model, tau) in enumerate(zip(self.levels, (*self.thresholds, -math.inf), strict=True)):
            if tau == math.inf:  # never accepts, so there is nothing to ask
                continue
            told = self.heads or self.scorers
            head = told[level] if level < len(told) else None
            try:
                step = await ask(
                    level, model, question, context, self.options, self.pricing, check=tau > -math.inf, head=head
                )
            except ModelCallError as error:
                failure = error
                asked.append({"model": model.name, "failed": str(error)})
                continue
            total += step.cost + step.check
            asked.append(
                {"model": model.name, "confidence": _json(step.confidence), "cost": _json(step.cost + step.check)}
            )
            # NaN compares false, so it defers; minus infinity as a threshold accepts unseen
            if tau == -math.inf or step.confidence >= tau:
                return self._reply(level, step, asked, total)
            if step.reply is not None and step.reply.text.strip():
                deepest = (level, step)
        # the last level accepts whatever it says, so it has failed: what was said before is better than nothing
        if deepest is None:
            raise failure or ModelCallError("no level gave a reply")
        return self._reply(*deepest, asked, total, fallback=True)

    def _reply(self, level: int, step: Step, asked: Sequence[Any], total: float, **meta: Any) -> Reply:
        assert step.reply is not None  # ask returns a reply or raises
        return Reply.of(
            step.reply,
            level=level + 1,
            model=self.levels[level].name,
            levels=list(asked),
            cost=_json(total),
            cost_unit=self.pricing.unit,
            **meta,
        )


class Cascade(Method[Options]):
    """Ask models from weak to strong; stop at the first whose own reply is above its level's threshold."""

    Options = Options
    system = CascadeSystem
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Cascade"
    paper: ClassVar[str] = "arXiv 2305.05176, 2404.10136"

    def needs(self) -> Needs:
        kind = self.options.confidence
        asked = {"p_true": {"score"}, "self_report": {"score"}, "scorer": {"train", "reward"}}
        optional = {"logprobs"} if kind in CHOW else asked.get(kind, set())
        return Needs(capabilities=(), min_models=2, optional={"generate", *optional}, check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        per_level = {"agreement": options.samples, "p_true": 1, "self_report": 1, "scorer": 1}
        checks = per_level.get(options.confidence, 0) * (models - 1)
        levels = models if options.whole else models - 1
        return Cost(fit=dev * (levels + checks) if options.fits else 0, respond=models + checks)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        found = self.cost(len(levels_of(pool)), dev)
        if self.options.confidence != "scorer":
            return found
        from moco_method_cascade.scorer import predicted

        return attrs.evolve(found, **predicted(pool, self.options, dev, sampling))

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> CascadeSystem:
        options = self.options
        fitted = Fitted(thresholds=per_level(options.thresholds, len(levels_of(pool)) - 1))
        if options.fits:
            if not dev:
                learnt = f"confidence: {options.confidence}"
                what = learnt if options.select == "fixed" else f"select: {options.select}"
                raise ConfigError(
                    f"cascade.{what} needs dev examples, there are none; raise the dev limit, or set select=fixed, "
                    "thresholds and a confidence that is not learnt"
                )
            fitted = await fit(pool, dev, options, context)
        return CascadeSystem(pool, options, fitted.thresholds, fitted.heads, fitted.scorers)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> CascadeSystem:
        scorers: list[Model | None] = []
        if state.get("scorers"):
            from moco_toolkit_training import restore_trained

            places = [folder / f"scorer{level}" for level in range(len(state["scorers"]))]
            scorers = [restore_trained(pool, s, place) for s, place in zip(state["scorers"], places, strict=True)]
        return CascadeSystem(pool, self.options, **{**state, "scorers": tuple(scorers)})

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options, levels = self.options, levels_of(pool)
        count = len(levels) - 1
        if count < 1 and len(pool) > 1:
            return [f"needs two models that write text, the pool has {len(levels)}; add models to the pool"]
        out = []
        for key, length in (("accept_fraction", count), ("thresholds", count), ("prices", count + 1)):
            value = getattr(options, key)
            if isinstance(value, tuple) and len(value) != length:
                out.append(f"{key}: {len(levels)} levels need {length} values, got {len(value)}")
        if options.confidence in CHOW:
            for model in levels[:-1]:
                if not model.can("logprobs"):
                    out.append(
                        f"confidence: model {model.name!r} cannot return the log-probabilities of its tokens "
                        f"(capability 'logprobs'), which {options.confidence} needs of every level but the last; "
                        "choose p_true, self_report or agreement, or put the model last"
                    )
        if options.confidence == "scorer" and pool:
            from moco_method_cascade.scorer import scorer_problems

            out += scorer_problems(pool, options)
        if options.max_depth is not None and options.max_depth > len(levels):
            out.append(f"max_depth: expected at most {len(pool)}, the number of levels; got {options.max_depth}")
        return out


def _json(value: float) -> float | None:
    """JSON has no infinities: what is unknown is None."""
    return value if math.isfinite(value) else None
