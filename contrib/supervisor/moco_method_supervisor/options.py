"""Options of supervisor."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import Plugin, option, plugin_option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """What is supervised, by whom, and how strictly."""

    method: Plugin = plugin_option("method", help="the method whose members are watched")
    by: Literal["agreement", "judge", "reward"] = option(
        "agreement",
        help="whom a reply must convince: the other members' answers, a model that says yes or no, or a reward model",
    )
    pool: Plugin | None = plugin_option(
        "pool", None, help="the supervisor's pool (judge, reward); none takes the run's"
    )
    model: str | int = option(0, help="the supervisor in that pool, by name or index (judge, reward)")
    on: Literal["dev", "question", "both"] = option(
        "both",
        help="dev: drop members from the pool before fitting; question: replace their replies, question by question",
    )
    ratio: float = option(
        0.7, ge=0, le=1, help="a member is bad if its trust is below this share of the most trusted one's"
    )

    @property
    def asks(self) -> bool:
        """Whether a model is asked about every reply."""
        return self.by != "agreement"
