"""Macro-averages with their intervals, and the reference study's own aggregate, recomputed for a grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from moco_core import Report, Row
from moco_toolkit_comparison.comparing import Comparison, table_of
from moco_toolkit_comparison.statistics import Array, interval

__all__ = ["PUBLISHED", "Macro", "Study", "by_pool", "over_datasets", "over_subsets", "study"]

FEW = 20
"""Parts with fewer questions make an interval that a reader is warned of."""

PUBLISHED: Mapping[str, float] = {
    "cells_above_stated": 0.610,
    "cells_above_recomputed": 132 / 234,
    "emergence": 0.185,
    "emergence_qa": 0.158,
    "emergence_safety": 0.141,
    "emergence_code": 0.176,
    "mean_weight_level": 60.1,
    "mean_all_methods": 53.5,
}
"""What the study (arXiv 2601.21257) reports. Of its (pool, method, domain) cells above the best single model it states 61.0 %;
its printed table has 132 of 234. No chance level and no control stand beside its emergence."""


@attrs.frozen(kw_only=True)
class Macro:
    """The mean over the means of ``parts`` and its interval; ``few`` are the parts with few questions."""

    mean: float
    low: float
    high: float
    parts: Mapping[str, int]
    few: tuple[str, ...]


def over_subsets(row: Row, level: float = 0.95, seed: int = 0) -> Macro | None:
    """Return the mean over a system's subsets, which count alike whatever their size; None with less than two."""
    parts: dict[str, list[float]] = {}
    for unit in row.units:
        if unit.subset:
            parts.setdefault(unit.subset, []).append(unit.score)
    return _macro({name: np.array([scores]) for name, scores in sorted(parts.items())}, level, seed)


def over_datasets(
    reports: Sequence[Report], label: str, minus: str | None = None, level: float = 0.95, seed: int = 0
) -> Macro | None:
    """Return the mean over datasets of a system's score, or of its difference to another system (``minus``).

    With ``minus="best single"`` it is that of each dataset. Datasets where one of the two is missing are left out; None with
    less than two. The reports are those of one pool (:func:`by_pool`): elsewhere a label is another system.
    """
    parts: dict[str, Array] = {}
    for report in reports:
        rows = {r.label: r for r in report.rows if r.units}
        if report.best is not None:
            rows["best single"] = report.best
        if label not in rows or (minus is not None and minus not in rows):
            continue
        table = table_of([rows[label]])
        if minus is not None:
            pair = table_of([rows[label], rows[minus]])
            table = (pair[:1] - pair[1:])[:, ~np.isnan(pair).any(axis=0)]
        if table.size:
            # two metrics of one dataset are two parts
            parts[f"{report.dataset} ({report.metric})" if report.dataset in parts else report.dataset] = table
    return _macro(parts, level, seed)


def by_pool(reports: Iterable[Report]) -> list[list[Report]]:
    """Return the reports of each pool of models, in the order of their first."""
    found: dict[tuple[str, ...], list[Report]] = {}
    for report in reports:
        found.setdefault(tuple(map(str, report.rows[0].runs[0].models)), []).append(report)
    return [*found.values()]


def _macro(parts: Mapping[str, Array], level: float, seed: int) -> Macro | None:
    if len(parts) < 2:
        return None
    tables = list(parts.values())
    low, high = interval(tables, lambda means: sum(m[:, 0] for m in means) / len(means), seed=seed, level=level)
    sizes = {name: table.shape[1] for name, table in parts.items()}
    mean = math.fsum(float(t.mean()) for t in tables) / len(tables)
    few = tuple(name for name, size in sizes.items() if size < FEW)
    return Macro(mean=mean, low=low, high=high, parts=sizes, few=few)


@attrs.frozen(kw_only=True)
class Study:
    """The study's aggregate for a grid: how many (dataset, method) ``cells`` lie ``above`` the best single model, and the mean
    emergence over the cells that have one, beside that of their equal-budget controls and beside chance.
    """

    cells: int
    above: int
    emergence: float | None
    control_emergence: float | None
    chance: float | None

    @property
    def share(self) -> float | None:
        return self.above / self.cells if self.cells else None

    def data(self) -> dict[str, Any]:
        return attrs.asdict(self) | {"share": self.share, "published": dict(PUBLISHED)}

    def rows(self) -> list[tuple[str, float | None, float | None, str]]:
        """Return (quantity, here, published, what it is) for tables; none without cells."""
        above = "share of (dataset, method) cells above the best single model"
        domains = (("QA", "emergence_qa"), ("safety", "emergence_safety"), ("code", "emergence_code"))
        printed = ", ".join(f"{name} {PUBLISHED[key]:.1%}" for name, key in domains)
        found: list[tuple[str, float | None, float | None, str]] = [
            (above, self.share, PUBLISHED["cells_above_stated"], f"{self.above} of {self.cells} here; as stated"),
            (above, self.share, PUBLISHED["cells_above_recomputed"], "132 of 234 in the printed table"),
            ("emergence", self.emergence, PUBLISHED["emergence"], f"no single model is right, the system is ({printed})"),
            ("emergence of the equal-budget controls", self.control_emergence, None, "none published"),
            ("chance", self.chance, None, "none published"),
        ]
        return found if self.cells else []


def study(comparisons: Sequence[Comparison]) -> Study:
    """Recompute the study's aggregate from comparisons, one per pool and dataset."""
    cells, above, emergences, controls, chances = 0, 0, [], [], []
    for comparison in comparisons:
        for standing in comparison.standings:
            if standing.row.role != "method" or standing.row.versus is None:
                continue
            cells += 1
            above += standing.row.versus.difference > 0
            emergences += _shares([standing.emergence])
            controls += _shares([standing.control_emergence.get("equal budget")])
            if standing.emergence and standing.emergence.open and comparison.chance is not None:
                chances.append(comparison.chance)
    return Study(
        cells=cells,
        above=above,
        emergence=_mean(emergences),
        control_emergence=_mean(controls),
        chance=_mean(chances),
    )


def _shares(found: Sequence[Any]) -> list[float]:
    return [e.share for e in found if e is not None and e.share is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
