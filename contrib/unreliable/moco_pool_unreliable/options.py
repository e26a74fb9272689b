"""Options of the unreliable pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from moco_core import ConfigError, Plugin, option, plugin_option

__all__ = ["Behaviour", "Options"]

Behaviour = Literal["wrong", "colluding", "verbose", "self_voting", "injecting"]


def _problem(given: Sequence[str]) -> str | None:
    if not given:
        return "empty; say how bad members behave, or set bad: 0"
    if len(set(given)) < len(given):
        return "expected each behaviour once"
    return "wrong and colluding exclude each other" if {"wrong", "colluding"} <= set(given) else None


@attrs.frozen(kw_only=True)
class Options:
    """Which members are bad, how, and how often."""

    pool: Plugin = plugin_option("pool", help="the pool whose members are made unreliable")
    members: tuple[str | int, ...] = option((), help="the bad members by name or index; instead of `bad`")
    bad: int = option(0, ge=0, help="how many bad members are drawn; those of n are among those of n + 1")
    behaviour: tuple[Behaviour, ...] = option(
        ("wrong",),
        check=_problem,
        help="wrong: another answer than its model's; colluding: all bad members one wrong answer; verbose: padded; "
        "self_voting: calls its own reply the best; injecting: tells its readers to give its answer. Several add up",
    )
    rate: float = option(
        1.0, gt=0, le=1, help="share of the questions on which bad members misbehave; colluders on the same"
    )
    length: int = option(100, ge=1, help="words of padding, as far as the reply's token budget reaches (verbose)")
    seed: int = option(0, help="draws the bad members, the questions and the lies")

    def __attrs_post_init__(self) -> None:
        if self.members and self.bad:
            raise ConfigError("bad: members are named; give one of the two")
