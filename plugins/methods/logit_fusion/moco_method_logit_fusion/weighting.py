"""Weights by dev scores: of the members alone, or of the fused model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from moco_core import Context, Example, Pool, Sampling
from moco_method_logit_fusion.fusing import fused_model
from moco_method_logit_fusion.options import Options

__all__ = ["by_dev", "by_search", "points"]


async def by_dev(pool: Pool, options: Options, dev: Sequence[Example], context: Context) -> list[float]:
    """Return the softmax of the members' mean dev scores at temperature ``tau_w``."""
    means = (await context.evaluate(pool, dev, _greedy(context))).means()
    top = max(means)
    shares = [math.exp((m - top) / options.tau_w) for m in means]
    return [s / sum(shares) for s in shares]


async def by_search(pool: Pool, options: Options, dev: Sequence[Example], context: Context, unite: bool) -> list[float]:
    """Return the weights of the best fused dev score; equal scores go to the point nearest the uniform one."""
    n = len(pool)
    candidates = _grid(n)
    generator = context.rng("logit_fusion", "search")
    while len(candidates) < points(n, options.search_budget):
        draw = [generator.expovariate(1.0) for _ in range(n)]  # a Dirichlet(1, ..., 1) point
        candidates.append([d / sum(draw) for d in draw])
    best: tuple[float, float, list[float]] | None = None
    for number, weights in enumerate(candidates):
        one = next((i for i, w in enumerate(weights) if w == 1), None)
        # a corner of the simplex is that model itself: its dev replies are in the cache already
        model = pool[one] if one is not None else fused_model(pool, options, weights, unite)
        score = (await context.evaluate([model], dev, _greedy(context), label=f"weights {number + 1}")).means()[0]
        context.note(step=number, weights=weights, score=score)
        distance = sum((w - 1 / n) ** 2 for w in weights)
        if best is None or (-score, distance) < (-best[0], best[1]):
            best = (score, distance, weights)
    assert best is not None  # the grid is never empty
    return best[2]


def points(models: int, budget: int) -> int:
    """Return how many weightings are tried: the grid of two models, else corners, uniform point and random draws."""
    return len(_grid(models)) + (budget if models > 2 else 0)


def _grid(n: int) -> list[list[float]]:
    if n == 2:
        return [[i / 10, 1 - i / 10] for i in range(11)]
    return [[1 / n] * n, *([float(i == j) for j in range(n)] for i in range(n))]


def _greedy(context: Context) -> Sampling:
    """Decode greedily while fitting, so that scores do not depend on luck."""
    return attrs.evolve(context.sampling, temperature=0.0)
