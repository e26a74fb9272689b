"""The options that methods with duels share."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import Sampling, option
from moco_toolkit_duels.standings import Scale

__all__ = ["DuelOptions"]


@attrs.frozen(kw_only=True)
class DuelOptions:
    """How models answer and judge in duels, how ratings move, and how models are trained on what came of it."""

    random_match_prob: float = option(
        0.2, ge=0, le=1, help="chance of an opponent drawn from all others", paper="0.6 (script), 0.2 (code)"
    )
    num_opponents: int = option(
        3, ge=1, help="else the opponent is one of so many with the closest ratings", paper="5 (script), 3 (code)"
    )
    temperature: float = option(0.7, gt=0, help="sampling of the duellists' replies")
    top_p: float = option(1.0, gt=0, le=1, help="nucleus of the duellists' replies")
    max_new_tokens: int | None = option(
        None, ge=1, help="budget of the duellists' replies; none takes the run's", paper="512"
    )
    judging: Literal["written", "expected"] = option(
        "written",
        help="a judge's score: the number that it writes, or the expectation under its probabilities of all ten",
        paper="written",
    )
    judge_rounds: int = option(
        1, ge=1, help="scores drawn per judge and reply; one if judge_temperature is 0", paper="3"
    )
    judge_temperature: float = option(0.0, ge=0, help="sampling of written scores")
    judge_max_new_tokens: int = option(64, ge=1, help="budget of a judge's reply")
    initial_k: float = option(10.0, gt=0, help="how far a duel moves ratings at first", paper="10")
    min_k: float = option(5.0, ge=0, help="and at least", paper="5")
    decay_rate: float = option(
        0.9, gt=0, le=1, help="its decay per decay_steps duels, over all iterations", paper="0.9"
    )
    decay_steps: float = option(10.0, gt=0, help="see decay_rate", paper="10")
    scaling_factor: float = option(20.0, gt=0, help="what movements are divided by, lambda", paper="20")
    window: int = option(10, ge=2, help="movements that a model's deviation is taken of", paper="10")
    min_deviation: float = option(0.1, gt=0, help="smallest deviation", paper="0.1")
    epsilon: float = option(0.01, ge=0, help="smallest factor for the gap between two ratings", paper="0.01")
    initial_deviation: float = option(0.5, gt=0, help="deviation of a new model", paper="0.5")
    rating_floor: float = option(10.0, gt=0, help="smallest rating", paper="10")
    gap: Literal["published", "upset"] = option(
        "published",
        help="what the gap of ratings does: |Phi(z) - Phi(-z)|, or 1 - Phi(z) of the winner",
        paper="published",
    )
    min_margin: float = option(0.0, ge=0, help="smallest difference of mean scores that makes a pair; ties never do")
    holdout: float = option(0.2, gt=0, lt=1, help="share of dev that selects the model and is never duelled on")
    beta: float = option(0.1, gt=0, help="DPO: weight of staying near the last checkpoint", paper="0.1")
    learning_rate: float | None = option(
        None, gt=0, help="none: 5e-6 for adapters, 1e-6 for all weights (DPO)", paper="1e-6"
    )
    epochs: float = option(1, gt=0, help="passes over an iteration's pairs", paper="1")
    batch: int = option(16, ge=1, help="pairs per update; halved until an epoch has ten updates", paper="1")
    warmup: float = option(
        0.1, ge=0, le=1, help="share of updates in which the rate rises; it falls as a cosine", paper="0.1"
    )
    max_length: int = option(1024, ge=2, help="tokens of a prompt and reply in training", paper="512 + 256")
    lora_r: int = option(16, ge=0, help="rank of new adapters; 0 trains all weights")
    lora_alpha: int = option(32, ge=1, help="their scale")
    seed: int = option(0, help="added to the run's seed for draws of instructions, opponents and training order")

    @property
    def rounds(self) -> int:
        """How often a judge is asked for one score: greedy replies do not differ."""
        return self.judge_rounds if self.judge_temperature and self.judging == "written" else 1

    @property
    def scale(self) -> Scale:
        return Scale(
            deviation=self.initial_deviation,
            floor=self.rating_floor,
            initial_k=self.initial_k,
            min_k=self.min_k,
            decay_rate=self.decay_rate,
            decay_steps=self.decay_steps,
            scaling=self.scaling_factor,
            window=self.window,
            min_deviation=self.min_deviation,
            epsilon=self.epsilon,
            gap=self.gap,
        )

    def sampling(self, run: Sampling) -> Sampling:
        """Return the decoding of duellists: always sampled."""
        return attrs.evolve(
            run,
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens or run.max_new_tokens,
        )
