"""What a comparison is worth, from the runs alone: corrected tests, groups, verdicts, costs, aggregates."""

from moco_toolkit_comparison.aggregates import PUBLISHED, Macro, Study, over_datasets, over_subsets, study
from moco_toolkit_comparison.comparing import Comparison, Emergence, Standing, table_of
from moco_toolkit_comparison.costs import Amount, Line, answering, costs, front, read_prices, total
from moco_toolkit_comparison.loading import comparable, differences, load_runs
from moco_toolkit_comparison.statistics import detectable, gap_closed, holm, interval, letters, pairwise, resampled
from moco_toolkit_comparison.verdicts import Rule, Verdict, judge

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
