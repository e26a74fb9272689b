"""The numbers that decide how a swarm moves and when it stops."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import option

__all__ = ["StartingVelocity", "SwarmSettings"]

StartingVelocity = Literal["random", "zero", "best"]


@attrs.frozen(kw_only=True)
class SwarmSettings:
    """Settings of one swarm. The four coefficients are relative: they are divided by their (drawn) sum.

    ``restart_patience=None`` never restarts. ``cooldown`` is the number of iterations after a restart in which the same
    particle is not restarted again; None means ``restart_patience``, which is the same as counting anew from the restart.
    ``drop_round`` and ``drop_particle`` are the chances to skip the evaluation of a whole round, or of one particle, which
    then keep their last scores.
    """

    inertia: float = option(0.2, ge=0, help="phi_v: weight of the velocity", paper="grid 0.1, 0.2, 0.3")
    cognitive_coeff: float = option(0.3, ge=0, help="phi_p: towards the particle's own best", paper="grid 0.1 .. 0.5")
    social_coeff: float = option(0.4, ge=0, help="phi_g: towards the swarm's best", paper="grid 0.2 .. 0.6")
    repel_coeff: float = option(0.05, ge=0, help="phi_w: away from the swarm's worst", paper="grid 0.01, 0.05, 0.1")
    step_length: float = option(0.5, gt=0, help="lambda of the first move", paper="grid 0.5 .. 1")
    step_length_factor: float = option(0.95, gt=0, le=1, help="decay of lambda per iteration", paper="0.95")
    minimum_step_length: float = option(0.1, gt=0, help="lambda never falls below this", paper="0.1")
    weight_randomness: bool = option(True, help="draw four numbers per particle and iteration", paper="true")
    starting_velocity: StartingVelocity = option("random", help="velocity before the first move", paper="random")
    patience: int = option(5, ge=1, help="stop after this many iterations without a better best", paper="10")
    restart_patience: int | None = option(3, ge=1, help="iterations without a better own best before a restart")
    cooldown: int | None = option(None, ge=0, help="iterations in which a restarted particle is left alone")
    max_iterations: int = option(10, ge=0, help="moves at most", paper="50")
    drop_round: float = option(0.0, ge=0, lt=1, help="chance to skip a round of evaluations")
    drop_particle: float = option(0.0, ge=0, lt=1, help="chance to skip one particle's evaluation")
    seed: int = option(0, help="seed of everything drawn", paper="42")
