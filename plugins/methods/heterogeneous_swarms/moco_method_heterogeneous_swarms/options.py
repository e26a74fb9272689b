"""Options of heterogeneous_swarms."""

from __future__ import annotations

import math
from typing import Literal

import attrs

from moco_core import option
from moco_toolkit_swarm import SwarmSettings

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """How long and how far both swarms search, and what a model may say to the next."""

    population: int = option(10, ge=2, le=50, help="graphs that move", paper="10")
    num_assignments: int = option(
        10, ge=1, help="weight step: draws of a model for every node, per iteration", paper="10"
    )
    max_iterations: int = option(20, ge=1, help="moves at most", paper="20 (200 in the code)")
    patience: int = option(6, ge=1, help="stop after this many iterations without a better graph", paper="6")
    restart_patience: float = option(
        0.67, gt=0, le=1, help="share of patience after which a stuck particle restarts from its best", paper="0.67"
    )
    inertia: float = option(0.2, ge=0, le=1, help="phi_v: weight of the velocity", paper="grid 0.1 .. 0.3")
    cognitive_coeff: float = option(
        0.3, ge=0, le=1, help="phi_p: towards the particle's own best", paper="grid 0.1 .. 0.5"
    )
    social_coeff: float = option(0.4, ge=0, le=1, help="phi_g: towards the swarm's best", paper="grid 0.2 .. 0.6")
    repel_coeff: float = option(0.05, ge=0, le=1, help="phi_w: away from the worst", paper="grid 0.01, 0.05, 0.1")
    step_length: float = option(0.5, gt=0, le=1, help="lambda of the first move", paper="grid 0.5 .. 1")
    step_length_factor: float = option(0.95, gt=0, le=1, help="decay of lambda per iteration", paper="0.95")
    minimum_step_length: float = option(0.1, gt=0, help="lambda never falls below this", paper="0.1")
    decode_top_p: float = option(
        0.0, ge=0, lt=1, help="nucleus from which edges are drawn when a matrix is decoded; 0: the largest", paper="0"
    )
    weight_step: Literal["auto", "on", "off"] = option(
        "auto", help="move the models' weights too; auto: where they can be merged", paper="on"
    )
    adapter_combine: Literal["factors", "exact"] = option(
        "factors", help="positions of LoRA adapters: their factors, or their updates", paper="factors"
    )
    dev_ratio: float = option(
        1.0, gt=0, le=1, help="share of the dev examples that every evaluation uses", paper="1 of 200"
    )
    max_message_tokens: int = option(
        512, ge=1, help="reply budget of every node but the last, if the run's is not lower", paper="50 (code)"
    )
    check_dev: bool = option(
        False, help="ask every model alone on dev too: tell the gain, and warn if the best single model is better"
    )
    seed: int = option(0, help="added to the run's seed, for everything drawn")

    def settings(self, seed: int) -> SwarmSettings:
        """Return the settings of the swarm of graphs."""
        stuck = self.restart_patience * self.patience
        return SwarmSettings(
            inertia=self.inertia,
            cognitive_coeff=self.cognitive_coeff,
            social_coeff=self.social_coeff,
            repel_coeff=self.repel_coeff,
            step_length=self.step_length,
            step_length_factor=self.step_length_factor,
            minimum_step_length=self.minimum_step_length,
            patience=self.patience,
            # the released code counts the round of the personal best itself
            restart_patience=max(1, math.ceil(stuck) - 1),
            cooldown=int(stuck),
            max_iterations=self.max_iterations,
            seed=seed,
        )
