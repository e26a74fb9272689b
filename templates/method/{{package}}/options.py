"""Options of {{name}}."""

from __future__ import annotations

import attrs

from moco_core import option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of {{name}}."""

    samples: int = option(1, ge=1, help="replies asked of every model")
    rank: bool = option(True, help="rank the models on dev; ties go to the best one instead of the first")
