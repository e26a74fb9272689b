"""Minimising over a box with nevergrad, asked and told, from an asynchronous objective."""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
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
    drawn = np.random.RandomState(seed).get_state()

    @contextmanager
    def drawing() -> Iterator[None]:
        """Lend numpy's own generator, which several optimisers draw from or seed, at where the seed and they left it."""
        nonlocal drawn
        everybodys = np.random.get_state()
        np.random.set_state(drawn)
        try:
            yield
        finally:
            drawn = np.random.get_state()
            np.random.set_state(everybodys)

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
        with drawing():
            space = ng.p.Array(init=np.zeros(size), lower=-bound, upper=bound)
            space.random_state = np.random.RandomState(seed)
            search = ng.optimizers.registry[optimizer](parametrization=space, budget=budget, num_workers=1)
            candidate = search.ask()

        def following(candidate: Any, value: float) -> Any:
            with drawing():  # at once: between the two, a thread that some optimisers run in may draw
                search.tell(candidate, value)
                return search.ask()

        try:
            early = [(0.0,) * size, *(tuple(s) for s in suggestions if max(map(abs, s)) <= bound)]
            if tuple(candidate.value.tolist()) == early[0]:
                early = early[1:]
                candidate = following(candidate, await evaluate(candidate.value.tolist()))
            for point in early[: budget - len(evaluated)]:
                await evaluate(point)
            while len(evaluated) < budget:
                value = await evaluate(candidate.value.tolist())
                if len(evaluated) < budget:
                    candidate = following(candidate, value)
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
