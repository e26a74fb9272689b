"""Greedy, uniform and learned soups.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference
time", arXiv 2203.05482 (ICML 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from moco_core import Context, Cost, Example, Method, Model, Needs, Pool
from moco_method_greedy_soup.options import Options
from moco_toolkit_merging import Linear, Mean, Merge, MergedSystem, Search, finish, prepare, share_base, weight_needs
from moco_toolkit_swarm import Swarm, SwarmSettings, softmax

__all__ = ["GreedySoup"]


class GreedySoup(Method[Options]):
    """Average the models' weights, keeping only those that do not lower the dev score."""

    Options = Options
    system = MergedSystem
    level: ClassVar[Literal["weight"]] = "weight"
    title: ClassVar[str] = "Greedy soup"
    paper: ClassVar[str] = "arXiv 2203.05482"

    def needs(self) -> Needs:
        return weight_needs(min_models=2, export=self.options.export, composition=self.options.adapter_combine)

    def cost(self, models: int, dev: int) -> Cost:
        dev = min(dev, self.options.dev_limit or dev)
        if self.options.recipe == "uniform":
            return Cost(fit=0, respond=1)
        if self.options.recipe == "learned":
            return Cost(fit=dev * (models + self.options.population * (self.options.max_iterations + 1)), respond=1)
        later = sum(max(models - 1 - k, 0) for k in range(1, self.options.passes))
        return Cost(fit=dev * (2 * models - 1 + later), respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MergedSystem:
        options, models = self.options, list(pool)
        await prepare(context, models, options.export)
        facts: dict[str, Any] = {"recipe": options.recipe}
        if options.recipe == "uniform":
            merge = self._soup(models)
            facts["ingredients"] = [m.name for m in models]
        else:
            search = Search(pool, dev, context, limit=options.dev_limit, total=self._steps(len(models)))
            try:
                work = self._greedy if options.recipe == "greedy" else self._learned
                merge, found = await work(search, models, context)
            finally:
                search.close()
            facts |= {**found, "trace": search.trace}
        return await finish(MergedSystem(pool, options, name="soup", merge=merge, facts=facts), "greedy_soup")

    def _steps(self, models: int) -> int:
        return round(self.cost(models, 1).fit)

    def _soup(self, models: Sequence[Model]) -> Merge:
        if share_base(models):
            return Merge.adapters([1 / len(models)] * len(models), models, self.options.adapter_combine)
        return Merge.weights(Mean(accumulate_dtype=self.options.accumulate_dtype), models)

    def _mix(self, weights: Sequence[float], models: Sequence[Model]) -> Merge:
        if share_base(models):
            return Merge.adapters(weights, models, self.options.adapter_combine)
        return Merge.weights(Linear(coefficients=tuple(weights)), models)

    async def _greedy(
        self, search: Search, models: Sequence[Model], context: Context
    ) -> tuple[Merge, dict[str, Any]]:
        """Add one model after the other, best first, and keep it if the soup's dev score holds."""
        options = self.options
        scores = await search.singles(models)
        order = sorted(range(len(models)), key=lambda i: (-scores[i], i))
        chosen, best, left = [order[0]], scores[order[0]], order[1:]
        limit = options.max_ingredients or len(models)
        for _ in range(options.passes):
            rejected = []
            for position, i in enumerate(left):
                if len(chosen) >= limit:
                    rejected += left[position:]
                    break
                candidate = self._soup([models[j] for j in (*chosen, i)])
                score = await search.score(
                    candidate, f"soup of {len(chosen) + 1} with {models[i].name}", added=models[i].name
                )
                accepted = self._accepts(score, best)
                search.trace[-1]["accepted"] = accepted
                if accepted:
                    chosen.append(i)
                    best = score
                else:
                    rejected.append(i)
            if len(rejected) == len(left) or not rejected:
                break
            left = rejected
        facts = {
            "scores": dict(zip((m.name for m in models), scores, strict=True)),
            "ingredients": [models[i].name for i in chosen],
            "dev_score": best,
        }
        return self._soup([models[i] for i in chosen]), facts

    def _accepts(self, score: float, best: float) -> bool:
        if self.options.accept == "ge":
            return score >= best
        if self.options.accept == "gt":
            return score > best
        return score >= best + self.options.margin

    async def _learned(
        self, search: Search, models: Sequence[Model], context: Context
    ) -> tuple[Merge, dict[str, Any]]:
        """Search softmax mixing weights by particle swarm, from the uniform soup and one corner per best model."""
        options, count = self.options, len(models)
        scores = await search.singles(models)
        order = sorted(range(count), key=lambda i: (-scores[i], i))
        starts = [(0.0,) * count]
        for k in range(options.population - 1):
            # towards single models in order of their scores: softmax(2) gives one of four models about 0.7
            lean = order[k % count]
            starts.append(tuple(2.0 / (1 + k // count) * (i == lean) for i in range(count)))
        settings = SwarmSettings(
            seed=context.rng("greedy_soup", options.seed).getrandbits(32),
            max_iterations=options.max_iterations,
            patience=options.max_iterations + 1,
        )
        swarm = Swarm(settings, starts)
        while proposals := swarm.ask():
            told = []
            for p in proposals:
                weights = softmax(p.position)
                told.append(
                    await search.score(self._mix(weights, models), f"mix {p.iteration}.{p.particle}", weights=weights)
                )
            swarm.tell(told)
        best, weights = swarm.best_score, softmax(swarm.best)
        if scores[order[0]] >= best:  # a single model is a mixture too, and the simpler one
            best, weights = scores[order[0]], [float(i == order[0]) for i in range(count)]
        names = [m.name for m in models]
        facts = {"scores": dict(zip(names, scores, strict=True)), "weights": dict(zip(names, weights, strict=True))}
        return self._mix(weights, models), {**facts, "dev_score": best}
