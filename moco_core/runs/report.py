"""The comparison of a benchmark: every system against the best single model of the pool, with its uncertainty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from moco_core.runs.results import RunResult
from moco_core.runs.stats import Comparison, Estimate, compare, estimate
from moco_core.types import canonical

__all__ = ["Report", "Row", "best_single", "make_reports"]


@attrs.frozen(kw_only=True)
class Row:
    """One system in a report. ``versus`` compares it with the best single model; None for that model itself."""

    label: str
    role: str
    best: bool
    estimate: Estimate | None
    versus: Comparison | None
    result: RunResult


@attrs.frozen(kw_only=True)
class Report:
    """All systems on one dataset with one seed. ``chosen_on`` says how the best single model was chosen, if any."""

    dataset: str
    seed: int
    metric: str
    rows: tuple[Row, ...]
    chosen_on: str

    def data(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {
            "dataset": self.dataset,
            "seed": self.seed,
            "metric": self.metric,
            "best_single_chosen_on": self.chosen_on or None,
            "rows": [_row_data(r) for r in self.rows],
        }


def best_single(results: Sequence[RunResult]) -> tuple[RunResult | None, str]:
    """Return the best single model and how it was chosen: by dev score, else (no dev split) by test score.

    None and an empty text if no single model has a score.
    """
    singles = [r for r in results if r.role == "baseline" and r.units]
    if not singles:
        return None, ""
    if all(r.dev_mean is not None for r in singles):
        return max(singles, key=lambda r: (r.dev_mean or 0.0, -singles.index(r))), "dev"
    # choosing on test favours the baseline, never a method
    return max(singles, key=lambda r: sum(u.score for u in r.units) / len(r.units)), "test (no dev split)"


def make_reports(results: Iterable[RunResult]) -> list[Report]:
    """Compare runs with each other that differ in their method alone: on one dataset, with one seed and pool."""
    groups: dict[str, list[RunResult]] = {}
    for result in sorted(results, key=lambda r: r.position):
        compared = {name: part for name, part in result.config.items() if name not in ("pool", "method")}
        groups.setdefault(canonical([compared, result.models]), []).append(result)
    reports = []
    for members in groups.values():
        seed = members[0].seed
        best, chosen_on = best_single(members)
        rows = []
        for result in members:
            versus = None
            if best is not None and result is not best:
                versus = compare(result.units, best.units, seed)
            rows.append(
                Row(
                    label=result.label,
                    role=result.role,
                    best=result is best,
                    estimate=estimate(result.units, seed),
                    versus=versus,
                    result=result,
                )
            )
        rows.sort(key=lambda r: (r.role == "method", r.estimate.mean if r.estimate else -1.0))
        reports.append(
            Report(
                dataset=members[0].dataset,
                seed=seed,
                metric=members[0].metric,
                rows=tuple(rows),
                chosen_on=chosen_on,
            )
        )
    return reports


def _row_data(row: Row) -> dict[str, Any]:
    result = row.result
    return {
        "label": row.label,
        "role": row.role,
        "best_single": row.best,
        "score": None if row.estimate is None else attrs.asdict(row.estimate),
        "figures": dict(result.figures),
        "subsets": result.subsets,
        "versus_best_single": None if row.versus is None else attrs.asdict(row.versus),
        "questions": result.questions,
        "failed": result.failed,
        "unparsed": result.unparsed,
        "truncated": result.truncated,
        "calls": result.calls,
        "cached_calls": result.cached_calls,
        "completion_tokens": result.usage.completion_tokens,
        "prompt_tokens": result.usage.prompt_tokens,
        "seconds": result.seconds,
        "status": result.status,
        "folder": str(result.folder),
        "left_out": result.left_out,
        "warnings": list(result.warnings),
        "error": result.first_error,
    }
