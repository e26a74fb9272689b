"""Minimising over a box with nevergrad, asked and told, from an asynchronous objective."""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from moco_core import ConfigError, suggest

__all__ = ["Found", "minimise"]


@attrs.frozen(kw_only=True)
class Found:
    """The best evaluated point, its value, and the value of the very first point."""

    weights: tuple[float, ...]
    value: float
    first: float


async def minimise(
    objective: Callable[[Sequence[float]], Awaitable[float]],
    size: int,
    *,
    bound: float,
    budget: int,
    optimizer: str = "NGOpt",
    seed: int = 42,
    suggestions: Sequence[Sequence[float]] = (),
) -> Found:
    """Minimise over [-bound, bound]^size from the origin, which is always the first point evaluated.

    The best *evaluated* point is returned, the earliest among equals, not the optimiser's recommendation. ``suggestions``
    are tried next, inside the budget. Raises ConfigError for an unknown optimiser; exceptions of the objective propagate.
    """
    import nevergrad as ng
    import numpy as np

    if optimizer not in ng.optimizers.registry:
        raise ConfigError(
            f"optimizer: nevergrad has no {optimizer!r}{suggest(optimizer, ng.optimizers.registry)}; for example NGOpt, "
            "CMA, TwoPointsDE, OnePlusOne"
        )
    space = ng.p.Array(init=np.zeros(size), lower=-bound, upper=bound)
    space.random_state = np.random.RandomState(seed)
    evaluated: list[tuple[tuple[float, ...], float]] = []

    async def evaluate(point: Sequence[float]) -> float:
        weights = tuple(float(w) for w in point)
        for known, value in evaluated:
            if known == weights:  # the origin and the suggestions are asked for again by some optimisers
                evaluated.append((weights, value))
                return value
        value = float(await objective(weights))
        if math.isnan(value):
            raise ConfigError(f"lorahub: the objective is not a number at weights {list(weights)}")
        evaluated.append((weights, value))
        return value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nevergrad warns about budgets and bounds that are what the paper uses
        search = ng.optimizers.registry[optimizer](parametrization=space, budget=budget, num_workers=1)
        try:
            early = [(0.0,) * size, *(tuple(s) for s in suggestions if max(map(abs, s)) <= bound)]
            first_ask = search.ask()
            if tuple(first_ask.value.tolist()) == early[0]:
                early = early[1:]
                search.tell(first_ask, await evaluate(first_ask.value.tolist()))
                pending: Any = None
            else:
                pending = first_ask
            for point in early[: budget - len(evaluated)]:
                await evaluate(point)
            while len(evaluated) < budget:
                candidate = pending if pending is not None else search.ask()
                pending = None
                search.tell(candidate, await evaluate(candidate.value.tolist()))
        finally:
            _stop(search)
    weights, value = min(evaluated, key=lambda e: e[1])  # min keeps the earliest of equals
    return Found(weights=weights, value=value, first=evaluated[0][1])


def _stop(search: Any) -> None:
    """End the thread that some optimisers run in (COBYLA behind NGOpt): it would keep the process from exiting."""
    seen = []
    while search is not None and search not in seen:
        seen.append(search)
        thread = getattr(search, "_messaging_thread", None)
        if thread is not None:
            thread.stop()
        search = getattr(search, "_optim", None)
