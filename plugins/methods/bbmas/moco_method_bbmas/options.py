"""Options of bbmas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from moco_core import Sampling, option

__all__ = ["ROLES", "WORKERS", "Options"]

ROLES = ("planner", "decider", "critic", "cleaner", "conflict_resolver")
"""Who always stands by in controller mode, beside the experts made up for the question."""

WORKERS = ("control_unit", "generator", *ROLES)
"""Whose model `roles` may name."""


@attrs.frozen(kw_only=True)
class Options:
    """Who writes on the board, how long, and when the discussion ends."""

    control: Literal["self", "controller"] = option(
        "self",
        help="who acts: agents that choose their own actions, or roles that a control unit names",
        paper="controller",
    )
    max_agents_per_round: int = option(1, ge=1, help="self: agents that act in a round, all on the same board")
    min_agents_to_stop: int = option(
        1, ge=1, help="self: agents whose latest entry must be a conclusion for an early end"
    )
    agent_idle_threshold: int = option(6, ge=1, help="self: an agent idle for more rounds than this acts first")
    max_rounds: int = option(10, ge=1, help="rounds at most", paper="about 4")
    max_retries: int = option(3, ge=0, help="further attempts, each with a shorter prompt, after a reply of no use")
    num_experts: int = option(3, ge=1, help="controller: experts made up for each question", paper="per question")
    roles: Mapping[str, str | int] = option(
        factory=dict,
        help="controller: a model's name or index for control_unit, generator, planner, decider, critic, cleaner or "
        "conflict_resolver; the others are drawn for each question",
        paper="drawn",
    )
    max_entry_tokens: int = option(1024, ge=1, help="reply budget of a call, if the run's is not lower")
    max_board_tokens: int | None = option(
        None, ge=32, help="board shown at most; beyond it the oldest entries are left out; none: what the context takes"
    )
    rank_by_dev: bool = option(
        False, help="measure dev scores: they break ties and choose who answers if nobody concludes"
    )
    seed: int = option(0, help="added to the run's seed for who acts; replies are sampled with the run's alone")

    def sampling(self, run: Sampling) -> Sampling:
        """Return the decoding of every call."""
        return attrs.evolve(run, max_new_tokens=min(run.max_new_tokens, self.max_entry_tokens))
