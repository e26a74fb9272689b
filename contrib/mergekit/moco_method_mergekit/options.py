"""Options of mergekit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from moco_core import ConfigError, option

__all__ = ["Options", "Searched"]


@attrs.frozen(kw_only=True)
class Searched:
    """A number of the configuration that is searched: where it stands, and what is tried."""

    path: str = option(help="keys and positions on the way to it, with dots between: models.1.parameters.weight")
    low: float = option(0.0, help="the least that is tried")
    high: float = option(1.0, help="the most that is tried")
    steps: int = option(5, ge=2, help="optimizer=grid: how many numbers from low to high, both included")
    values: tuple[int | float, ...] = option((), help="optimizer=grid: the very numbers that are tried")

    def __attrs_post_init__(self) -> None:
        if not self.values and not self.low < self.high:
            raise ConfigError(f"{self.path}: low must be below high, got {self.low:g} and {self.high:g}")

    @property
    def grid(self) -> tuple[float, ...]:
        """The numbers that a grid tries."""
        if self.values:
            return self.values
        last = self.steps - 1
        return tuple((self.low * (last - k) + self.high * k) / last for k in range(self.steps))


@attrs.frozen(kw_only=True)
class Options:
    """What is merged, and how."""

    config: str | Mapping[str, Any] = option(
        "",
        holds="path",
        help="mergekit configuration: a YAML file, or a mapping; its models are named as in the pool, or by path",
    )
    search: tuple[str | Searched, ...] = option(
        (),
        help="numbers of it that dev decides: paths, or mappings of path, low, high (0 and 1), and steps (5) or values",
    )
    optimizer: Literal["grid", "swarm"] = option("grid", help="search: try all combinations, or let a particle swarm move")
    population: int = option(5, ge=2, help="optimizer=swarm: merges per round")
    max_iterations: int = option(5, ge=1, help="optimizer=swarm: rounds after the first")
    dev_limit: int | None = option(None, ge=1, help="search: dev questions per evaluation; none: all")
    seed: int = option(
        0, help="added to the run's seed, for merge methods that draw at random (dare, della) and for the swarm"
    )

    def __attrs_post_init__(self) -> None:
        paths = [number.path for number in self.searched]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice is not None:
            raise ConfigError(f"search: {twice} is named twice")
        listed = next((n.path for n in self.searched if n.values), None)
        if self.optimizer == "swarm" and listed is not None:
            raise ConfigError(f"search: {listed}: a swarm moves between low and high; give those, or optimizer grid")

    @property
    def searched(self) -> tuple[Searched, ...]:
        """The searched numbers, each with what is tried."""
        return tuple(Searched(path=n) if isinstance(n, str) else n for n in self.search)

    @property
    def candidates(self) -> int:
        """How many merges a search evaluates at most."""
        if not self.search:
            return 0
        if self.optimizer == "grid":
            return math.prod(len(number.grid) for number in self.searched)
        return self.population * (self.max_iterations + 1)
