"""The search for numbers of a configuration: over a grid, or by a particle swarm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Sequence

from moco_core import Context
from moco_method_mergekit.options import Options
from moco_toolkit_swarm import Swarm, SwarmSettings

__all__ = ["maximise"]

Numbers = tuple[float, ...]


async def maximise(
    options: Options, given: Sequence[float], score: Callable[[Numbers, str], Awaitable[float]], context: Context
) -> Numbers:
    """Return the numbers with the highest score, the earliest of equals; minus infinity is a score of none.

    A grid tries all combinations, the last number changing fastest. A swarm starts from the numbers as they are given and
    from draws between low and high, and does not leave that range, the given numbers included in it.
    """
    if options.optimizer == "grid":
        best, top = tuple(given), -math.inf
        for k, numbers in enumerate(itertools.product(*(number.grid for number in options.searched))):
            found = await score(numbers, f"grid {k}")
            if found > top:
                best, top = numbers, found
        return best
    low, span = [n.low for n in options.searched], [n.high - n.low for n in options.searched]
    first = tuple((g - a) / s for g, a, s in zip(given, low, span, strict=True))

    def decode(position: Sequence[float]) -> Numbers:
        inside = (min(max(x, min(f, 0.0)), max(f, 1.0)) for x, f in zip(position, first, strict=True))
        return tuple(a + s * x for a, s, x in zip(low, span, inside, strict=True))

    starts = [first]
    for k in range(options.population - 1):
        rng = context.rng("mergekit", "start", options.seed, k)
        starts.append(tuple(rng.random() for _ in given))
    settings = SwarmSettings(
        seed=context.rng("mergekit", "swarm", options.seed).getrandbits(32),
        max_iterations=options.max_iterations,
        patience=options.max_iterations + 1,
    )
    swarm = Swarm(settings, starts)
    while proposals := swarm.ask():
        swarm.tell([await score(decode(p.position), f"merge {p.iteration}.{p.particle}") for p in proposals])
    return decode(swarm.best) if swarm.best_score > -math.inf else tuple(given)
