"""Options of supervisor."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import ConfigError, Plugin, option, plugin_option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """What is supervised, by whom, and how strictly."""

    method: Plugin = plugin_option("method", help="the method whose members are watched")
    by: Literal["agreement", "score", "judge", "reward"] = option(
        "agreement",
        help="what a reply is trusted for: the other members' answers, its score (dev alone), a model's yes, or a reward",
    )
    pool: Plugin | None = plugin_option(
        "pool", None, help="the supervisor's pool (judge, reward); none takes the run's"
    )
    model: str | int = option(0, help="the supervisor in that pool, by name or index (judge, reward)")
    on: Literal["dev", "question", "both"] = option(
        "both",
        help="dev: drop members from the pool before fitting; question: replace their replies, question by question",
    )
    action: Literal["drop", "weight"] = option(
        "drop",
        help="what becomes of a bad member: it is left out, or counts for less, in a vote or as a share of its replies",
    )
    weight: float | None = option(
        None,
        ge=0,
        le=1,
        help="a bad member's weight (action=weight); none: its trust as a share of the most trusted one's",
    )
    ratio: float = option(
        0.7, ge=0, le=1, help="a member is bad if its trust is below this share of the most trusted one's"
    )
    seed: int = option(0, help="added to the run's seed, for the questions on which a share of replies stands")

    def __attrs_post_init__(self) -> None:
        if self.by == "score" and self.on == "question":
            raise ConfigError("on: replies are scored on dev alone (by=score); choose dev, or another supervisor")
        if self.weight is not None and self.action == "drop":
            raise ConfigError("weight: bad members are dropped; set action to weight")

    @property
    def asks(self) -> bool:
        """Whether a model is asked about every reply."""
        return self.by in ("judge", "reward")

    @property
    def on_questions(self) -> bool:
        """Whether members are watched on every question."""
        return self.on != "dev" and self.by != "score"

    def weight_of(self, share: float) -> float:
        """Return what a bad member weighs whose trust is that share of the most trusted one's; 0 leaves it out."""
        if self.action == "drop":
            return 0.0
        return share if self.weight is None else self.weight
