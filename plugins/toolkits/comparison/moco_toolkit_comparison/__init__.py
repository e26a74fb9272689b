"""What a comparison is worth, from the runs alone: corrected tests, groups, verdicts, costs, aggregates.

What needs numpy is imported when it is first used, so that commands which only read runs start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from moco_toolkit_comparison.costs import Amount, Line, answering, costs, front, read_prices, total
from moco_toolkit_comparison.loading import comparable, differences, load_runs
from moco_toolkit_comparison.power import detectable
from moco_toolkit_comparison.verdicts import Rule, Verdict, judge

if TYPE_CHECKING:
    from moco_toolkit_comparison.aggregates import PUBLISHED, Macro, Study, by_pool, over_datasets, over_subsets, study
    from moco_toolkit_comparison.comparing import Comparison, Emergence, Standing, table_of
    from moco_toolkit_comparison.statistics import gap_closed, holm, interval, letters, pairwise, resampled
else:

    def __getattr__(name: str) -> Any:
        for part in ("statistics", "comparing", "aggregates") if name in __all__ else ():
            module = importlib.import_module(f"{__name__}.{part}")
            if name in module.__all__:
                value = globals()[name] = getattr(module, name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "PUBLISHED",
    "Amount",
    "Comparison",
    "Emergence",
    "Line",
    "Macro",
    "Rule",
    "Standing",
    "Study",
    "Verdict",
    "answering",
    "by_pool",
    "comparable",
    "costs",
    "detectable",
    "differences",
    "front",
    "gap_closed",
    "holm",
    "interval",
    "judge",
    "letters",
    "load_runs",
    "over_datasets",
    "over_subsets",
    "pairwise",
    "read_prices",
    "resampled",
    "study",
    "table_of",
    "total",
]
