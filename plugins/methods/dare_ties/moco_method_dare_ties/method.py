"""DARE, TIES and task arithmetic, with given or searched task weights.

Yu et al., "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch", arXiv 2311.03099
(ICML 2024); Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", arXiv 2306.01708 (NeurIPS 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from moco_core import Context, Cost, Example, Method, Model, Needs, Pool
from moco_method_dare_ties.options import DENSITY, Options
from moco_toolkit_merging import (
    Consensus,
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
from moco_toolkit_swarm import Swarm, SwarmSettings, softmax

__all__ = ["DareTies"]


class DareTies(Method[Options]):
    """Thin out each model's task vector, elect a sign per parameter, and add back what agrees."""

    Options = Options
    system = MergedSystem
    level: ClassVar[Literal["weight"]] = "weight"
    title: ClassVar[str] = "DARE-TIES"
    paper: ClassVar[str] = "arXiv 2311.03099, 2306.01708"

    def needs(self) -> Needs:
        return weight_needs(
            min_models=3 if self.options.base else 2, export=self.options.export, check=self._check, dense=True
        )

    def _check(self, pool: Sequence[Model]) -> list[str]:
        base = self.options.base
        if base and base not in [m.name for m in pool]:
            return [f"option base names {base!r}, which is not in the pool"]
        if not base and not share_base(pool):
            return ["needs the model the others were trained from; add it to the pool and name it with option 'base'"]
        experts = len(pool) - bool(base)
        problems = []
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
