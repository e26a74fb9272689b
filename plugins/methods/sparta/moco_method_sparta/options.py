"""Options of sparta."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import Plugin, option, plugin_option
from moco_toolkit_duels import DuelOptions

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options(DuelOptions):
    """How many rounds of duels and training, how ratings start and weigh, and who answers in the end."""

    num_iterations: int = option(3, ge=0, help="rounds of duels and training; 0 only selects", paper="8")
    num_instructions: int = option(
        500, ge=1, help="duels per round, each on another dev question; at most as many as there are", paper="1000"
    )
    start: Literal["equal", "scores"] = option(
        "equal",
        help="first ratings: 100 for all, or in proportion to the models' own dev scores (authors' unfair mode)",
    )
    weights_at: Literal["start", "end"] = option(
        "start",
        help="ratings that weigh judges where pairs are made: of the start or the end of the round",
        paper="end (code)",
    )
    score_type: Literal["normal", "dynamic", "static"] = option(
        "normal",
        help="from the second round the lowest-rated models' own scores count 0, 0.1, 0.2, ... in rating updates: one more "
        "model each round, ranked anew (dynamic) or for good (static); as it is from the eighth",
        paper="all three (code)",
    )
    method: Plugin | None = plugin_option(
        "method",
        None,
        help="a method over the aligned models, each at its best checkpoint; none: the best one answers alone",
    )
