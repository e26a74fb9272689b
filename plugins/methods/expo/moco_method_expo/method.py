"""Model extrapolation.

Zheng et al., "Model Extrapolation Expedites Alignment", arXiv 2404.16792 (ACL 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from moco_core import ConfigError, Context, Cost, Example, Method, Model, Needs, Pool
from moco_method_expo.direction import Direction
from moco_method_expo.options import Options
from moco_toolkit_merging import (
    MergedSystem,
    Search,
    SourceRef,
    finish,
    prepare,
    resolve,
    share_base,
    strangers,
    weight_needs,
)

__all__ = ["Expo"]


class Expo(Method[Options]):
    """Go on in the direction from a weaker model to a stronger one, as far as dev says."""

    Options = Options
    system = MergedSystem
    level: ClassVar[Literal["weight"]] = "weight"
    title: ClassVar[str] = "ExPO"
    paper: ClassVar[str] = "arXiv 2404.16792"

    def needs(self) -> Needs:
        alone = self.options.direction == "pair" and not self.options.source
        return weight_needs(min_models=1 if alone else 2, export=self.options.export, check=self._check)

    def _check(self, pool: Sequence[Model]) -> list[str]:
        o, names = self.options, [m.name for m in pool]
        problems = [
            f"option {key} names {name!r}, which is not in the pool"
            for key, name in (("source", o.source), ("target", o.target), ("base", o.base))
            if name and name not in names
        ]
        if problems:
            return problems
        if o.direction == "pair" and not o.source and not next(m for m in pool if m.name == o.target).adapter:
            return ["mode 'pair' needs the model the target was trained from; name it with option 'source'"]
        if o.direction == "pair" and o.source == o.target:
            return ["source and target are the same model, so there is no direction"]
        if o.direction == "topk_bottomk" and 2 * o.k > len(pool):
            return [
                f"option k is {o.k}, but top and bottom of {len(pool)} models overlap; use at most {len(pool) // 2}"
            ]
        if o.direction == "base_to_mean":
            rest = [m for m in pool if m.name != o.base]
            if not o.base and not share_base(rest):
                return ["mode 'base_to_mean' needs the model the others were trained from; name it with option 'base'"]
            if o.base:
                return strangers(rest, next(m for m in pool if m.name == o.base))
        return []

    def cost(self, models: int, dev: int) -> Cost:
        o = self.options
        dev = min(dev, o.dev_limit or dev)
        ranking = {"pair": 2 if o.check else 0, "base_to_mean": 0}.get(o.direction, models)
        grid = len({0.0, *o.alpha_grid}) + 2 * o.refine if o.alpha == "search" else 0
        return Cost(fit=dev * (ranking + grid), respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MergedSystem:
        o, models = self.options, list(pool)
        await prepare(context, models, o.export)
        needs_dev = self.cost(len(models), 1).fit > 0
        search = (
            Search(pool, dev, context, limit=o.dev_limit, total=round(self.cost(len(models), 1).fit))
            if needs_dev
            else None
        )
        try:
            direction, facts = await self._direction(search, pool, context)
            if o.alpha == "search":
                assert search is not None  # a search costs dev evaluations
                alpha = await self._strength(search, direction)
            else:
                alpha = float(o.alpha)
        finally:
            if search is not None:
                search.close()
        facts |= {"mode": o.direction, "alpha": alpha, "trace": search.trace if search else []}
        return await finish(MergedSystem(pool, o, name="expo", merge=direction.at(alpha), facts=facts), "expo")

    async def _direction(self, search: Search | None, pool: Pool, context: Context) -> tuple[Direction, dict[str, Any]]:
        """Return the models to move on from and to move away from."""
        o, models = self.options, list(pool)
        if o.direction == "pair":
            target = pool.named(o.target, "target")
            source = SourceRef.of(pool.named(o.source, "source")) if o.source else SourceRef.of(target, base=True)
            facts: dict[str, Any] = {}
            if o.check and search is not None:
                after = await search.score(target, target.name)
                before = await search.score(source.find(pool), "source")
                facts["scores"] = {"target": after, "source": before}
                if after < before:
                    context.warn(
                        f"expo: the target {target.name!r} scores {after:.3f} on dev, below its source ({before:.3f}); "
                        "extrapolating goes the wrong way"
                    )
            return Direction([target], [source], pool, o.exclude), facts
        if o.direction == "base_to_mean":
            rest = [m for m in models if m.name != o.base]
            return Direction(rest, [resolve(pool, o.base, rest, "mode 'base_to_mean'")], pool, o.exclude), {}
        assert search is not None  # these modes rank the models on dev
        scores = await search.singles(models)
        if len(set(scores)) == 1:
            raise ConfigError(
                f"expo: all {len(models)} models score {scores[0]:.3f} on dev, so there is no direction from worse to better; "
                "use more dev questions, or mode 'pair' with a source and a target"
            )
        order = sorted(range(len(models)), key=lambda i: (-scores[i], i))
        k = o.k if o.direction == "topk_bottomk" else 1
        top, bottom = [models[i] for i in order[:k]], [models[i] for i in order[-k:]]
        facts = {
            "scores": dict(zip((m.name for m in models), scores, strict=True)),
            "target": [m.name for m in top],
            "source": [m.name for m in bottom],
        }
        return Direction(top, [SourceRef.of(m) for m in bottom], pool, o.exclude), facts

    async def _strength(self, search: Search, direction: Direction) -> float:
        """Return the strength of the best dev score, ties to the one nearest 0: the grid, then its best one's middles."""
        o = self.options
        scores: dict[float, float] = {}

        async def measure(alpha: float) -> float:
            scores[alpha] = await search.score(direction.at(alpha), f"alpha {alpha:g}", alpha=alpha)
            return scores[alpha]

        grid = sorted({0.0, *o.alpha_grid}, key=lambda a: (abs(a), a))
        drops, last = 0, float("-inf")
        for alpha in grid:
            score = await measure(alpha)
            drops = drops + 1 if score < last else 0
            last = score
            if o.early_exit and drops >= 2:
                break

        def best() -> float:
            return min(scores, key=lambda a: (-scores[a], abs(a), a))

        if o.refine:
            tried, centre = sorted(scores), best()
            at = tried.index(centre)
            for other in tried[max(at - 1, 0) : at] + tried[at + 1 : at + 2]:
                await measure((centre + other) / 2)
        return best()
