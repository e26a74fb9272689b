"""Options of sparta_stackelberg."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import ConfigError, option
from moco_toolkit_duels import DuelOptions

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options(DuelOptions):
    """What the leader rewards, whom it lets meet, and by what the models are trained."""

    training_algorithm: Literal["dpo", "grpo"] = option(
        "dpo", help="train on pairs of a duel's replies, or on fresh replies that the other models score", paper="both"
    )
    num_iterations: int = option(8, ge=0, help="rounds in all; schedules run over them", paper="8")
    num_duels_per_iteration: int = option(
        64, ge=1, help="duels per round, instructions drawn with replacement", paper="64"
    )
    leader_type: Literal["probabilistic", "uniform"] = option(
        "probabilistic", help="draw instructions by learnt weights, or each alike (as sparta)", paper="probabilistic"
    )
    leader_scope: Literal["global", "per_model"] = option(
        "global", help="one vector of weights, or one for each active model", paper="global"
    )
    matching: Literal["schedule_decreasing", "schedule_increasing", "lowest_diff", "highest_diff"] = option(
        "schedule_decreasing",
        help="opponents: near a gap of ratings that falls from 1 to 0 (or rises), or among the closest (or farthest)",
        paper="schedule_decreasing",
    )
    gamma: float = option(0.2, ge=0, le=1, help="share of instructions drawn regardless of weights", paper="0.2")
    eta: Literal["1/K", "gamma/K"] = option(
        "1/K", help="step of the weights, K instructions: the paper's, or that of the textbook's EXP3", paper="1/K"
    )
    score_threshold: float = option(
        3.0, ge=1, lt=10, help="mean score from which an instruction is learnable", paper="3"
    )
    difficulty_weight: float = option(
        0.3,
        ge=0,
        le=1,
        help="weight of difficulty in the leader's reward; the rest is that of the gap of scores",
        paper="0.3",
    )
    g_start: float = option(0.6, ge=0, le=1, help="wanted gap of scores, a share of 9, in the first round", paper="0.6")
    g_end: float = option(0.15, ge=0, le=1, help="and in the last", paper="0.15")
    sigma_r: float = option(0.15, gt=0, help="width of the reward around the wanted gap", paper="0.15")
    sigma_g: float = option(0.15, gt=0, help="width of matching around the scheduled gap of ratings", paper="0.15")
    lora_r: int = option(64, ge=0, help="rank of new adapters; 0 trains all weights", paper="64")
    lora_alpha: int = option(16, ge=1, help="their scale", paper="16")
    group: int = option(4, ge=2, help="GRPO: replies to an instruction", paper="4")
    grpo_beta: float = option(0.0, ge=0, help="GRPO: weight of staying near the last checkpoint", paper="0")
    grpo_epsilon: float = option(0.2, gt=0, le=1, help="GRPO: clipping", paper="0.2")
    rollout_temperature: float = option(1.0, gt=0, help="GRPO: sampling of replies")
    patience: int = option(20, ge=1, help="GRPO: updates without two different scores in any group that end it")

    def __attrs_post_init__(self) -> None:
        if self.training_algorithm == "grpo" and self.batch % self.group:
            raise ConfigError(f"batch: must be a multiple of group ({self.group}) for grpo, got {self.batch}")
