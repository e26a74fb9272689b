"""Options of mergekit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from moco_core import option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """What is merged, and how."""

    config: str | Mapping[str, Any] = option(
        "",
        holds="path",
        help="mergekit configuration: a YAML file, or a mapping; its models are named as in the pool, or by path",
    )
    seed: int = option(0, help="added to the run's seed, for merge methods that draw at random (dare, della)")
