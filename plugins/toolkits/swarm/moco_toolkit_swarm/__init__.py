"""Particle swarm optimisation over any vector space: seeded, resumable, with its trajectory recorded."""

from moco_toolkit_swarm.settings import StartingVelocity, SwarmSettings
from moco_toolkit_swarm.space import Numbers, Vector, VectorSpace, one_hot, softmax, uniform_positions
from moco_toolkit_swarm.swarm import Proposal, Round, Swarm, enlarge

__all__ = [
    "Numbers",
    "Proposal",
    "Round",
    "StartingVelocity",
    "Swarm",
    "SwarmSettings",
    "Vector",
    "VectorSpace",
    "enlarge",
    "one_hot",
    "softmax",
    "uniform_positions",
]
