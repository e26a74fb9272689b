"""Options of greedy_soup."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of greedy_soup."""

    recipe: Literal["greedy", "uniform", "learned"] = option(
        "greedy", help="keep what does not hurt, average all, or search mixing weights on dev", paper="greedy"
    )
    accept: Literal["ge", "gt", "margin"] = option(
        "ge", help="a candidate stays if its score is at least the best, above it, or above it by margin", paper="ge"
    )
    margin: float = option(0.0, ge=0, help="required gain for accept=margin", paper="0")
    max_ingredients: int | None = option(
        None, ge=1, help="stop at this many ingredients; none: all models", paper="all"
    )
    passes: int = option(1, ge=1, help="sweeps over ingredients that were rejected", paper="1")
    dev_limit: int | None = option(None, ge=1, help="dev questions per evaluation; none: all", paper="all")
    accumulate_dtype: Literal["float32", "float64"] = option("float32", help="type of the running sum", paper="float32")
    adapter_combine: Literal["exact", "factors"] = option(
        "exact", help="average LoRA adapters by their updates, or factor by factor"
    )
    population: int = option(8, ge=2, help="recipe=learned: candidates per round")
    max_iterations: int = option(5, ge=1, help="recipe=learned: rounds after the first")
    seed: int = option(0, help="recipe=learned: added to the run's seed, for the search")
    export: str = option(
        "", holds="path", help="new folder for the final model as an ordinary checkpoint; empty writes nothing"
    )
