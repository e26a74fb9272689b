"""Options of dare_ties."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import ConfigError, option

__all__ = ["DENSITY", "Options"]

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
    export: str = option(
        "", holds="path", help="new folder for the final model as an ordinary checkpoint; empty writes nothing"
    )

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
