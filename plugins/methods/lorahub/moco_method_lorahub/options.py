"""Options of lorahub."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of lorahub."""

    dev_samples: int = option(5, ge=1, help="few-shot examples drawn from the dev split", paper="5")
    objective: Literal["loss", "score"] = option(
        "loss", help="cross-entropy of the references, or one minus the mean score of greedy replies", paper="loss"
    )
    reference_format: str = option(
        "{}",
        check=lambda text: None if "{}" in text else "expected {} where the reference stands",
        help="objective=loss: the reply a reference stands for, as the adapters were trained to write it",
    )
    max_inference_step: int = option(40, ge=1, help="evaluations of the objective", paper="40")
    lora_weight_bound: float = option(1.5, gt=0, help="weights lie within plus and minus this", paper="1.5")
    regular_coef: float = option(0.05, ge=0, help="strength of the mean absolute weight in the objective", paper="0.05")
    composition: Literal["factors", "exact"] = option(
        "factors", help="add adapters factor by factor, or their updates", paper="factors"
    )
    optimizer: str = option("NGOpt", help="name of a nevergrad optimiser", paper="NGOpt")
    suggest: bool = option(False, help="try every single adapter and the uniform mixture first, inside the budget")
    num_candidates: int | None = option(None, ge=1, help="adapters drawn at random; none: all", paper="20")
    seed: int = option(42, help="added to the run's seed, for sample, candidates and optimiser", paper="42")
    export: str = option("", holds="path", help="new folder for the composed adapter; empty writes nothing")
