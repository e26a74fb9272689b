"""What a page says of all its sections together: means over datasets, and the reference study's aggregate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moco_toolkit_comparison import Comparison, by_pool, over_datasets, study

__all__ = ["grid_of"]


def grid_of(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return macro-averages of the systems that stand on several datasets, and the study's aggregate where there is a grid.

    One cell is no grid: its share above the best single model is all or nothing.
    """
    datasets: list[dict[str, Any]] = []
    for reports in by_pool(c.report for c in comparisons):
        roles = {row.label: row.role for report in reports for row in report.rows}
        for label, role in roles.items():
            score, against = over_datasets(reports, label), over_datasets(reports, label, minus="best single")
            if score:
                found = {"score": score.mean, "low": score.low, "high": score.high, "few": bool(score.few)}
                difference = against and (against.mean, against.low, against.high)
                datasets.append(
                    {"system": label, "role": role, "datasets": len(score.parts), **found, "difference": difference}
                )
    datasets.sort(key=lambda d: -d["score"])
    grid = study(comparisons)
    return {"datasets": datasets, "study": {"cells": grid.cells, "rows": grid.rows()} if grid.cells > 1 else None}
