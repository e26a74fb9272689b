"""Thin out each model's task vector, elect a sign per parameter, and add back what agrees."""

from __future__ import annotations

import math
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
    Consensus,
    Merge,
    MergedSystem,
    Search,
    SourceRef,
    finish,
    prepare,
    resolve,
    strangers,
    weight_needs,
)
from moco_toolkit_swarm import Swarm, SwarmSettings, softmax

__all__ = ["DareTies", "Options", "moco_method"]

DENSITY = {"dare": 0.5, "ties": 0.2, "none": 1.0}


@attrs.frozen(kw_only=True)
class Options:
    """Options of dare_ties."""

    base: str = option("", help="pool model the others were trained from; not needed for LoRA adapters of one base")
    sparsify: Literal["dare", "ties", "none"] = option(
        "dare", help="drop updates at random, drop the smallest, or keep all", paper="dare | ties"
    )
    density: float | tuple[float, ...] | None = option(
        None,
        ge=0,
        le=1,
        help="fraction kept, one or one per model; default 0.5 (dare), 0.2 (ties)",
        paper="0.1 .. 0.5 | 0.2",
    )
    rescale: Literal["auto", "inverse_density", "l1", "none"] = option(
        "auto", help="after dropping; auto: inverse_density for dare, none for ties", paper="1/(1-p) | none"
    )
    weights: Literal["equal", "search"] | tuple[float, ...] = option(
        "equal", help="task weights: all 1, found on dev, or one per model", paper="1 each"
    )
    normalize: bool = option(True, help="divide by the weight of the models that agree (disjoint mean)", paper="true")
    scaling: float = option(1.0, help="lambda: scale of the merged task vector", paper="1.0")
    consensus: Literal["sum", "count"] = option("sum", help="elect signs by mass or by head count", paper="sum")
    preset: Literal["", "mergekit"] = option(
        "", help="mergekit: rescale l1, normalize false, weights as given, lambda 1, for exact comparison"
    )
    search: Literal["swarm", "dirichlet"] = option("swarm", help="how weights=search looks for them")
    search_density: bool = option(False, help="weights=search: look for the density too")
    search_scaling: bool | None = option(None, help="weights=search: look for lambda too; default: unless normalize")
    population: int = option(5, ge=1, help="weights=search: candidates per round")
    max_iterations: int = option(5, ge=1, help="weights=search: rounds after the first")
    dev_limit: int | None = option(None, ge=1, help="dev questions per evaluation; none: all")
    seed: int = option(0, help="added to the run's seed, for masks and search")
    export: str = option("", help="new folder for the final model as an ordinary checkpoint; empty writes nothing")

    def __attrs_post_init__(self) -> None:
        if self.weights == "search" and self.population < 2 and self.search == "swarm":
            raise ConfigError("population: a swarm needs at least 2 candidates per round, got 1")
        if self.search_density and isinstance(self.density, tuple):
            raise ConfigError("search_density: looks for one density of all models; give density as one number")
        if self.search_scaling and self.preset:
            raise ConfigError(f"search_scaling: preset {self.preset!r} keeps lambda at 1; drop one of the two")

    @property
    def disjoint(self) -> bool:
        """Whether merging divides by the weight of those who agree."""
        return self.normalize and not self.preset


class DareTies(Method[Options]):
    """DARE, Yu et al. 2023 (arXiv 2311.03099), and TIES-Merging, Yadav et al. 2023 (arXiv 2306.01708)."""

    Options = Options
    system = MergedSystem
    level = "weight"
    title = "DARE-TIES"
    paper = "https://arxiv.org/abs/2311.03099"

    def needs(self) -> Needs:
        return weight_needs(
            min_models=3 if self.options.base else 2, export=self.options.export, check=self._check, dense=True
        )

    def _check(self, pool: Sequence[Model]) -> list[str]:
        base = self.options.base
        if base and base not in [m.name for m in pool]:
            return [f"option base names {base!r}, which is not in the pool"]
        if not base and not (all(m.adapter for m in pool) and len({m.base for m in pool}) == 1):
            return ["needs the model the others were trained from; add it to the pool and name it with option 'base'"]
        experts = len(pool) - bool(base)
        problems = []
        if experts < 2:
            problems.append(f"needs at least 2 fine-tuned models beside the base, the pool has {experts}; add models")
        if base:
            root = next(m for m in pool if m.name == base)
            problems += strangers([m for m in pool if m is not root], root)
        for name in ("weights", "density"):
            given = getattr(self.options, name)
            if isinstance(given, tuple) and len(given) != experts:
                problems.append(f"option {name} has {len(given)} numbers for {experts} models; give one for each")
        return problems

    def cost(self, models: int, dev: int) -> Cost:
        if self.options.weights != "search":
            return Cost(fit=0, respond=1)
        dev = min(dev, self.options.dev_limit or dev)
        return Cost(fit=dev * self.options.population * (self.options.max_iterations + 1), respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MergedSystem:
        options = self.options
        experts = [m for m in pool if m.name != options.base]
        problems = self._check(list(pool))
        if problems:
            raise ConfigError([f"dare_ties: {p}" for p in problems])
        base = resolve(pool, options.base, experts, "dare_ties")
        roots = [pool.named(options.base)] if options.base else []
        await prepare(context, [*experts, *roots], options.export, dense=True)
        masks = context.rng("dare_ties", "masks", options.seed).getrandbits(32)
        facts: dict[str, Any] = {}
        if options.weights == "search":
            search = Search(pool, dev, context, limit=options.dev_limit, total=round(self.cost(len(pool), 1).fit))
            try:
                operation = await self._search(search, experts, base, masks, context)
            finally:
                search.close()
            facts["trace"] = search.trace
        else:
            given = (1.0,) * len(experts) if options.weights == "equal" else options.weights
            operation = self.operation(len(experts), given, seed=masks)
        facts["weights"] = dict(zip((m.name for m in experts), operation.weights, strict=True))
        merge = Merge.weights(operation, experts, base)
        return await finish(MergedSystem(pool, options, name="dare-ties", merge=merge, facts=facts), "dare_ties")

    def operation(
        self,
        experts: int,
        weights: Sequence[float],
        density: float | None = None,
        scaling: float | None = None,
        seed: int = 0,
    ) -> Consensus:
        """Return the merging rule these options describe, with the given task weights and masks drawn by ``seed``."""
        options = self.options
        kept: Any = DENSITY[options.sparsify] if options.density is None else options.density
        if density is not None:
            kept = density
        rescale = options.rescale
        if rescale == "auto":
            rescale = "inverse_density" if options.sparsify == "dare" else "none"
        exact = options.preset == "mergekit"
        densities = tuple(kept) if isinstance(kept, tuple) else (float(kept),) * experts
        drawn = options.sparsify == "dare" and any(0 < d < 1 for d in densities)
        return Consensus(
            weights=tuple(float(w) for w in weights),
            density=densities,
            sparsify=options.sparsify,
            rescale="l1" if exact else rescale,
            vote=options.consensus,
            normalize=options.disjoint,
            scaling=1.0 if exact else options.scaling if scaling is None else scaling,
            seed=seed if drawn else 0,  # replies are stored under the recipe: a seed that decides nothing stays out
        )

    async def _search(
        self, search: Search, experts: Sequence[Model], base: SourceRef, masks: int, context: Context
    ) -> Consensus:
        """Maximise the dev score over softmax weights, and density and lambda if asked; uniform is always tried first."""
        options, count = self.options, len(experts)
        free_scale = options.search_scaling
        if free_scale is None:  # a disjoint mean does not see the scale of the weights
            free_scale = not options.disjoint and not options.preset
        size = count + options.search_density + free_scale

        def decode(position: Sequence[float]) -> Consensus:
            weights = softmax(position[:count])
            more = list(position[count:])
            start = options.density if isinstance(options.density, float) else DENSITY[options.sparsify]
            low, high = min(0.3, options.scaling), max(1.8, options.scaling)  # what is given stays within reach
            density = min(max(start + 0.25 * more.pop(0), min(0.05, start)), 1.0) if options.search_density else None
            scaling = min(max(options.scaling + 0.4 * more.pop(0), low), high) if free_scale else None
            if not options.disjoint:
                weights = [w * count for w in weights]  # uniform is then 1 each, as without a search
            return self.operation(count, weights, density, scaling, masks)

        async def score(position: Sequence[float], label: str) -> float:
            operation = decode(position)
            facts = {
                "weights": list(operation.weights),
                "density": list(operation.density),
                "scaling": operation.scaling,
            }
            return await search.score(Merge.weights(operation, experts, base), label, **facts)

        starts = [(0.0,) * size]  # weights alike, density and lambda as given
        draws = options.population - 1
        if options.search == "dirichlet":
            draws = options.population * (options.max_iterations + 1) - 1
        for k in range(draws):
            rng = context.rng("dare_ties", "start", options.seed, k)
            logits = [math.log(rng.expovariate(1.0)) for _ in range(count)]  # softmax of these is Dirichlet(1, ..., 1)
            starts.append((*logits, *(rng.uniform(-1.0, 1.0) for _ in range(size - count))))
        if options.search == "dirichlet":
            scores = [await score(u, f"draw {k}") for k, u in enumerate(starts)]
            return decode(starts[max(range(len(starts)), key=lambda k: (scores[k], -k))])
        settings = SwarmSettings(
            seed=context.rng("dare_ties", "swarm", options.seed).getrandbits(32),
            max_iterations=options.max_iterations,
            patience=options.max_iterations + 1,
        )
        swarm = Swarm(settings, starts)
        while proposals := swarm.ask():
            swarm.tell([await score(p.position, f"merge {p.iteration}.{p.particle}") for p in proposals])
        return decode(swarm.best)


@hookimpl
def moco_method() -> type[DareTies]:
    return DareTies
