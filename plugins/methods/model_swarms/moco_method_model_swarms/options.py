"""Options of model_swarms."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of model_swarms."""

    inertia: float = option(0.2, ge=0, le=1, help="phi_v: weight of the velocity", paper="grid 0.1 .. 0.3")
    cognitive_coeff: float = option(
        0.3, ge=0, le=1, help="phi_p: towards the particle's own best", paper="grid 0.1 .. 0.5"
    )
    social_coeff: float = option(0.4, ge=0, le=1, help="phi_g: towards the swarm's best", paper="grid 0.2 .. 0.6")
    repel_coeff: float = option(0.05, ge=0, le=1, help="phi_w: away from the worst", paper="grid 0.01, 0.05, 0.1")
    step_length: float = option(0.5, gt=0, le=1, help="lambda of the first move", paper="grid 0.5 .. 1")
    step_length_factor: float = option(0.95, gt=0, le=1, help="decay of lambda per iteration", paper="0.95")
    minimum_step_length: float = option(0.1, gt=0, help="lambda never falls below this", paper="0.1")
    weight_randomness: bool = option(True, help="draw four numbers per particle and iteration", paper="true")
    starting_velocity: Literal["random", "zero", "best"] = option(
        "random", help="velocity before the first move: towards another expert, none, towards the best", paper="random"
    )
    population: int | None = option(
        None, ge=2, help="particles; more than the experts adds crossed ones", paper="20 of 10"
    )
    patience: int = option(5, ge=1, help="stop after this many iterations without a better best", paper="10")
    restart_patience: int = option(3, ge=1, help="iterations before a stuck particle restarts from its best", paper="5")
    max_iterations: int = option(10, ge=1, help="moves at most", paper="50")
    adapter_combine: Literal["factors", "exact"] = option(
        "factors", help="positions of LoRA adapters: their factors, or their updates", paper="factors"
    )
    ensemble_top_k: int = option(1, ge=1, help="answer by majority vote of the k best personal bests", paper="1")
    dev_limit: int | None = option(None, ge=1, help="dev questions per evaluation; none: all", paper="200")
    seed: int = option(0, help="added to the run's seed, for everything drawn", paper="42")
    export: str = option(
        "", holds="path", help="new folder for the final model as an ordinary checkpoint; empty writes nothing"
    )
