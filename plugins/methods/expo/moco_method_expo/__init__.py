"""Extrapolate from a weaker model through a stronger one, with a strength chosen on dev."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import attrs

from moco_core import hookimpl
from moco_core.context import Context
from moco_core.errors import ConfigError
from moco_core.methods import Cost, Method
from moco_core.models import Model, Needs, Pool
from moco_core.options import option
from moco_core.types import Example
from moco_toolkit_merging import (
    Extrapolate,
    Merge,
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

__all__ = ["Expo", "Options", "moco_method"]

Mode = Literal["auto", "pair", "worst_to_best", "topk_bottomk", "base_to_mean"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of expo."""

    mode: Mode = option(
        "auto", help="where the direction comes from; auto: pair if a target is given, else worst_to_best"
    )
    source: str = option(
        "", help="mode=pair: pool model to move away from; empty for the base of an adapter", paper="SFT"
    )
    target: str = option("", help="mode=pair: pool model to move on from", paper="DPO or RLHF model")
    base: str = option("", help="mode=base_to_mean: pool model the others were trained from; not needed for adapters")
    alpha: float | Literal["search"] = option("search", help="strength, or found on dev", paper="0.3 .. 0.5, tuned")
    alpha_grid: tuple[float, ...] = option(
        (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0), help="strengths tried by alpha=search; 0 is always tried"
    )
    refine: bool = option(True, help="alpha=search: try the middles between the best strength and its neighbours too")
    early_exit: bool = option(False, help="alpha=search: stop raising alpha after two drops in a row")
    k: int = option(1, ge=1, help="mode=topk_bottomk: models at either end")
    check: bool = option(True, help="mode=pair: score both models on dev and warn if the target is the worse one")
    exclude: tuple[str, ...] = option((), help="name patterns of parameters that stay at the target")
    dev_limit: int | None = option(None, ge=1, help="dev questions per evaluation; none: all")
    export: str = option("", help="new folder for the final model as an ordinary checkpoint; empty writes nothing")

    def __attrs_post_init__(self) -> None:
        if self.mode == "pair" and not self.target:
            raise ConfigError("target: mode 'pair' needs the model to move on from")
        if self.mode not in ("auto", "pair") and (self.source or self.target):
            raise ConfigError(f"mode: {self.mode!r} takes no source and target; use mode 'pair'")
        if self.alpha == "search" and not self.alpha_grid:
            raise ConfigError("alpha_grid: empty; give at least one strength")

    @property
    def direction(self) -> str:
        """The mode that ``auto`` stands for."""
        return ("pair" if self.target else "worst_to_best") if self.mode == "auto" else self.mode


class Expo(Method[Options]):
    """Model extrapolation, Zheng et al. 2024 (arXiv 2404.16792)."""

    Options = Options
    system = MergedSystem
    level = "weight"
    title = "ExPO"
    paper = "https://arxiv.org/abs/2404.16792"

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
        problems = self._check(models)
        if problems:
            raise ConfigError([f"expo: {p}" for p in problems])
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


class Direction:
    """From the mean of ``sources`` through the mean of ``targets``; :meth:`at` goes ``alpha`` further.

    Adapters of one base stay an adapter: their updates are added exactly, and the base itself adds nothing.
    """

    def __init__(
        self, targets: Sequence[Model], sources: Sequence[SourceRef], pool: Pool, exclude: Sequence[str] = ()
    ) -> None:
        self.targets, self.sources, self.exclude = list(targets), list(sources), tuple(exclude)
        behind = [s.check(pool) for s in sources]
        self.lora = share_base([*targets, *behind])

    def at(self, alpha: float) -> Merge:
        """Return target + alpha (target - source)."""
        refs = [*(SourceRef.of(m) for m in self.targets), *self.sources]
        if not self.lora:
            return Merge(
                sources=refs, operation=Extrapolate(alpha=alpha, targets=len(self.targets), exclude=self.exclude)
            )
        ahead = [1.0 / len(self.targets)] * len(self.targets)
        behind = [-alpha / len(self.sources)] * len(self.sources)
        coefficients = [(1 + alpha) * a for a in ahead] + behind
        kept = ahead + [0.0] * len(self.sources)
        real = [i for i, ref in enumerate(refs) if not ref.base]  # the base has no tensors to add
        return Merge(
            sources=[refs[i] for i in real],
            coefficients=tuple(coefficients[i] for i in real),
            exclude=self.exclude,
            instead=tuple(kept[i] for i in real) if self.exclude else (),
        )


@hookimpl
def moco_method() -> type[Expo]:
    return Expo
