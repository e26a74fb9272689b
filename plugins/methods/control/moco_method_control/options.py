"""The options of controls."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import Plugin, option, plugin_option

__all__ = ["Kind", "Options"]

Kind = Literal["self", "equal_budget", "placebo"]


@attrs.frozen(kw_only=True)
class Options:
    """What is controlled, and how."""

    kind: Kind = option(
        "equal_budget",
        help="self: the method on copies of the best single model; equal_budget: that model alone, asked until it has used "
        "as much as the method; placebo: the method, learning from shuffled references and random scores",
    )
    method: Plugin = plugin_option("method", help="the method whose control this is")
    temperature: float = option(
        0.7, gt=0, help="of copies and further samples where the run decodes greedily (self, equal_budget)"
    )
    max_samples: int = option(64, ge=1, help="the most samples per question (equal_budget)")
