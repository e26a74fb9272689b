"""The leader: an EXP3 bandit over instructions (Auer et al. 2002), its rewards, and whom it lets meet."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import attrs

from moco_core.converters import floats
from moco_method_sparta_stackelberg.options import Options
from moco_toolkit_duels import closest

__all__ = ["Leader", "reward", "tau", "weights_of_opponents"]

LOW, HIGH = 1.0, 10.0


def tau(iteration: int, iterations: int) -> float:
    """Return how far the schedule is, from 0 in the first of all planned rounds to 1 in the last."""
    return iteration / max(iterations - 1, 1)


def reward(scores: tuple[float, float], progress: float, options: Options) -> float:
    """Return what a duel with these scores earns its instruction, in [0, 1]: hard but learnable, with the wanted gap."""
    threshold = options.score_threshold
    difficulties = [(HIGH - s) / (HIGH - threshold) if s >= threshold else 0.0 for s in scores]
    wanted = options.g_end + (options.g_start - options.g_end) * (1 - progress)
    off = abs(scores[0] - scores[1]) / (HIGH - LOW) - wanted
    preference = math.exp(-(off**2) / (2 * options.sigma_r**2))
    return options.difficulty_weight * math.fsum(difficulties) / 2 + (1 - options.difficulty_weight) * preference


@attrs.frozen(kw_only=True)
class Leader:
    """Log-weights of all instructions, the largest 0."""

    logs: tuple[float, ...] = attrs.field(converter=floats)

    def shares(self, gamma: float) -> list[float]:
        """Return the probability of every instruction, gamma / K at least."""
        weights = [math.exp(log) for log in self.logs]
        total = math.fsum(weights)
        return [(1 - gamma) * w / total + gamma / len(weights) for w in weights]

    def after(self, rewards: Sequence[tuple[int, float]], shares: Sequence[float], options: Options) -> Leader:
        """Return the leader after a round of ``(instruction, reward)``, which were drawn by ``shares``."""
        count = len(self.logs)
        eta = (options.gamma if options.eta == "gamma/K" else 1.0) / count
        logs = list(self.logs)
        for place, value in rewards:
            logs[place] += eta * value / shares[place]
        top = max(logs)
        return Leader(logs=[log - top for log in logs])


def weights_of_opponents(ratings: Sequence[float], model: int, progress: float, options: Options) -> list[float]:
    """Return the probability of every model to be met by one, itself 0, before chance has its share."""
    others = [j for j in range(len(ratings)) if j != model]
    if options.matching in ("lowest_diff", "highest_diff"):
        near = closest(ratings, model, options.num_opponents, farthest=options.matching == "highest_diff")
        return [float(j in near) / len(near) for j in range(len(ratings))]
    widest = max(abs(ratings[model] - ratings[j]) for j in others)
    wanted = progress if options.matching == "schedule_increasing" else 1 - progress

    def log(j: int) -> float:
        gap = abs(ratings[model] - ratings[j]) / widest if widest else 0.0
        return -((gap - wanted) ** 2) / (2 * options.sigma_g**2)

    top = max(log(j) for j in others)
    weights = [math.exp(log(j) - top) if j != model else 0.0 for j in range(len(ratings))]
    return [w / math.fsum(weights) for w in weights]


def drawn_opponent(ratings: Sequence[float], model: int, progress: float, options: Options, rng: random.Random) -> int:
    """Draw an opponent: with probability ``random_match_prob`` any other model, else by the schedule."""
    if rng.random() < options.random_match_prob:
        return rng.choice([j for j in range(len(ratings)) if j != model])
    weights = weights_of_opponents(ratings, model, progress, options)
    return rng.choices(range(len(ratings)), weights)[0]
