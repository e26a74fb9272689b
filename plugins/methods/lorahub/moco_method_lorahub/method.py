"""Composing LoRA adapters by weights that a gradient-free search finds on a few examples.

Huang et al., "LoraHub: Efficient Cross-Task Generalization via Dynamic LoRA Composition", arXiv 2307.13269 (COLM 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from moco_core import ConfigError, Context, Cost, Example, Method, Model, Needs, Pool, PromptTooLong
from moco_method_lorahub.optimiser import minimise
from moco_method_lorahub.options import Options
from moco_method_lorahub.sample import few, reference_text
from moco_toolkit_merging import Merge, MergedSystem, Search, finish, prepare, weight_needs

__all__ = ["LoraHub"]


class LoraHub(Method[Options]):
    """Find one weight per LoRA adapter that minimises the loss of a few dev examples, and compose the adapters so."""

    Options = Options
    system = MergedSystem
    level: ClassVar[Literal["weight"]] = "weight"
    title: ClassVar[str] = "LoraHub"
    paper: ClassVar[str] = "arXiv 2307.13269"

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
        """Return the teacher-forced cross-entropy: mean over tokens per item, then over items (natural logarithm).

        An item too long for the adapters' base is too long for every composition, and left out.
        """

        async def one(example: Example, scope: Context) -> float | None:
            reply = self.options.reference_format.replace("{}", reference_text(example) or "")
            try:
                (score,) = await scope.score(model, example.question, [reply])
            except PromptTooLong as error:
                context.warn(f"lorahub: dev example {example.id!r} is left out of the objective: {error}")
                return None
            if not score.token_logprobs:
                raise ConfigError(f"lorahub: dev example {example.id!r} has an empty reference; use objective 'score'")
            return -score.logprob / len(score.token_logprobs)

        losses = [loss for loss in await context.each(sample, one) if loss is not None]
        if not losses:
            raise ConfigError("lorahub: every sampled dev example is too long for the adapters' base")
        return sum(losses) / len(losses)
