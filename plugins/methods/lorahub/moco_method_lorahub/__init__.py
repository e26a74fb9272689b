"""Find one weight per LoRA adapter on a handful of examples, without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from moco_core import hookimpl
from moco_core.context import Context
from moco_core.errors import ConfigError
from moco_core.methods import Cost, Method
from moco_core.models import Model, Needs, Pool
from moco_core.options import option
from moco_core.types import Example
from moco_method_lorahub.optimiser import minimise
from moco_method_lorahub.sample import few, reference_text
from moco_toolkit_merging import Merge, MergedSystem, Search, finish, prepare, weight_needs

__all__ = ["LoraHub", "Options", "moco_method"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of lorahub."""

    dev_samples: int = option(5, ge=1, help="few-shot examples drawn from the dev split", paper="5")
    objective: Literal["loss", "score"] = option(
        "loss", help="cross-entropy of the references, or one minus the mean score of greedy replies", paper="loss"
    )
    reference_format: str = option(
        "{}",
        check=lambda text: None if "{}" in text else "expected {} where the reference stands",
        help="objective=loss: the reply a reference stands for, as the adapters were trained to write it",
    )
    max_inference_step: int = option(40, ge=1, help="evaluations of the objective", paper="40")
    lora_weight_bound: float = option(1.5, gt=0, help="weights lie within plus and minus this", paper="1.5")
    regular_coef: float = option(0.05, ge=0, help="strength of the mean absolute weight in the objective", paper="0.05")
    composition: Literal["factors", "exact"] = option(
        "factors", help="add adapters factor by factor, or their updates", paper="factors"
    )
    optimizer: str = option("NGOpt", help="name of a nevergrad optimiser", paper="NGOpt")
    suggest: bool = option(False, help="try every single adapter and the uniform mixture first, inside the budget")
    num_candidates: int | None = option(None, ge=1, help="adapters drawn at random; none: all", paper="20")
    seed: int = option(42, help="added to the run's seed, for sample, candidates and optimiser", paper="42")
    export: str = option("", help="new folder for the composed adapter; empty writes nothing")


class LoraHub(Method[Options]):
    """LoraHub, Huang et al. 2023 (arXiv 2307.13269)."""

    Options = Options
    system = MergedSystem
    level = "weight"
    title = "LoraHub"
    paper = "https://arxiv.org/abs/2307.13269"

    def needs(self) -> Needs:
        scoring = {"score"} if self.options.objective == "loss" else set()
        return weight_needs(
            export=self.options.export,
            composition=self.options.composition,
            more=sorted(scoring),
            same_base=True,
            adapters=True,
        )

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=self.options.max_inference_step * min(self.options.dev_samples, dev), respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MergedSystem:
        options = self.options
        models = self._candidates(list(pool), context)
        await prepare(context, models, options.export)
        sample = few(dev, options.dev_samples, context.rng("lorahub", "sample", options.seed))
        if options.objective == "loss":
            missing = next((e.id for e in sample if reference_text(e) is None), None)
            if missing is not None:
                raise ConfigError(
                    f"lorahub: dev example {missing!r} has no reference text, which objective 'loss' needs; "
                    "use objective 'score'"
                )
        search = Search(pool, sample, context, total=options.max_inference_step)
        offset: float | None = None  # 1 for scores of the unit interval, told by the first one; else 0

        async def objective(weights: Sequence[float]) -> float:
            nonlocal offset
            step = len(search.trace)
            penalty = options.regular_coef * sum(abs(w) for w in weights) / len(weights)
            merge = Merge.adapters(weights, models, options.composition)
            if options.objective == "score":
                score = await search.score(merge, f"weights {step}", weights=list(weights))
                if offset is None:  # once for the whole search: two scales would rank -0.5 above 0.2
                    offset = 1.0 if 0.0 <= score <= 1.0 else 0.0
                loss = offset - score
                search.trace[-1]["objective"] = loss + penalty
            else:
                loss = await self._loss(merge.model(pool, f"weights {step}"), sample, context)
                # a higher score is better everywhere else, so the log shows minus the objective
                search.record(f"weights {step}", -(loss + penalty), weights=list(weights), objective=loss + penalty)
            return loss + penalty

        count = len(models)
        first = [[float(i == j) for j in range(count)] for i in range(count)] + [[1.0 / count] * count]
        try:
            found = await minimise(
                objective,
                count,
                bound=options.lora_weight_bound,
                budget=options.max_inference_step,
                optimizer=options.optimizer,
                seed=context.rng("lorahub", "optimiser", options.seed).getrandbits(32),
                suggestions=first if options.suggest else (),
            )
        finally:
            search.close()
        facts = {
            "weights": dict(zip((m.name for m in models), found.weights, strict=True)),
            "objective": found.value,
            "objective_of_base": found.first,
            "dev": [e.id for e in sample],
            "trace": search.trace,
        }
        if not any(found.weights):
            context.warn("lorahub: no composition beats the plain base on the sampled dev examples; the base answers")
        merge = Merge.adapters(found.weights, models, options.composition)
        return await finish(MergedSystem(pool, options, name="lorahub", merge=merge, facts=facts), "lorahub")

    def _candidates(self, models: list[Model], context: Context) -> list[Model]:
        wanted = self.options.num_candidates
        if wanted is None or wanted >= len(models):
            return models
        rng = context.rng("lorahub", "candidates", self.options.seed)
        return [models[i] for i in sorted(rng.sample(range(len(models)), wanted))]

    async def _loss(self, model: Model, sample: Sequence[Example], context: Context) -> float:
        """Return the teacher-forced cross-entropy: mean over tokens per item, then over items (natural logarithm)."""

        async def one(example: Example, scope: Context) -> float:
            reply = self.options.reference_format.replace("{}", reference_text(example) or "")
            (score,) = await scope.score(model, example.question, [reply])
            if not score.token_logprobs:
                raise ConfigError(f"lorahub: dev example {example.id!r} has an empty reference; use objective 'score'")
            return -score.logprob / len(score.token_logprobs)

        losses = await context.each(sample, one)
        return sum(losses) / len(losses)


@hookimpl
def moco_method() -> type[LoraHub]:
    return LoraHub
