"""What a run tells, as the flat numbers that trackers take, under names such as ``cost/respond/small/completion``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["closing", "flat", "points", "report_text", "safe", "table"]

COLUMNS = (
    "dataset",
    "system",
    "role",
    "score",
    "low",
    "high",
    "n",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "seconds",
    "status",
)
"""The columns of the table."""

_UNSAFE = re.compile(r"[^\w\-. :/]")


def safe(name: str) -> str:
    """Return a name with nothing in it that trackers refuse: letters, digits and ``_-. :/`` stay."""
    return _UNSAFE.sub("_", name)


def flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, its keys joined by dots; every other value stays as it is."""
    if not isinstance(data, Mapping) or not data:
        return {prefix: data} if prefix else {}
    out: dict[str, Any] = {}
    for key, value in data.items():
        out |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return out


def _numbers(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in data.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _numbers(value, name)
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield safe(name), float(value)


def points(phase: str, data: Mapping[str, Any]) -> tuple[str, int | None, dict[str, float]]:
    """Return what one line of a fit log adds to curves: their prefix, the step if it says one, and the values by name.

    A training's lines have a prefix of their own, ``training/NAME``; all others the phase. What is no finite number is left
    out.
    """
    training = data.get("training")
    prefix = safe(f"training/{training}") if isinstance(training, str) else safe(phase)
    step = data.get("step")
    known = isinstance(step, int) and not isinstance(step, bool)
    return (
        prefix,
        step if known else None,
        dict(_numbers({k: v for k, v in data.items() if not (k == "step" and known)})),
    )


def closing(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a run's end: its score with the interval, extra metrics, shares, costs and times."""
    parts = {
        "score": {k: v for k, v in (summary.get("score") or {}).items() if k in ("mean", "low", "high", "n")},
        "extra_metrics": summary.get("extra_metrics") or {},
        "subset": {name: subset.get("mean") for name, subset in (summary.get("subsets") or {}).items()},
        "cost": summary.get("tokens") or {},
        "seconds": summary.get("timings") or {},
    }
    out = dict(_numbers(parts))
    out |= dict(_numbers({k: summary.get(k) for k in ("dev_mean", "questions", "failed", "unparsed", "truncated")}))
    totals: dict[str, float] = {}
    for phase in (summary.get("tokens") or {}).values():
        for row in phase.values():
            for what in ("prompt", "completion", "calls", "cached", "money"):
                if what in row:
                    totals[what] = totals.get(what, 0.0) + float(row[what])
    return out | {f"cost/total/{what}": value for what, value in totals.items()}


def table(reports: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return the comparison as rows of :data:`COLUMNS`, a row per system and dataset; None is what is unknown."""
    rows = []
    for report in reports:
        for row in report.get("rows", ()):
            score, versus = row.get("score") or {}, row.get("versus_best_single") or {}
            found = {
                "dataset": report.get("dataset"),
                "system": row.get("label"),
                "score": score.get("mean"),
                "low": score.get("low"),
                "high": score.get("high"),
                "n": score.get("n"),
                "difference": versus.get("difference"),
                "difference_low": versus.get("low"),
                "difference_high": versus.get("high"),
                "p": versus.get("p_value"),
            }
            rows.append([found[c] if c in found else row.get(c) for c in COLUMNS])
    return rows


def report_text(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the comparison in Markdown: a table per dataset, each score with its interval and what it is against."""
    out = ["# Comparison", ""]
    for report in reports:
        out += [f"## {_cell(report.get('dataset'))}", ""]
        seeds = ", ".join(map(str, report.get("seeds", ())))
        out += [f"Metric {_cell(report.get('metric'))}, seeds {seeds}.", ""]
        out += [
            "| system | score | 95% interval | n | against the best single model | p |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row in table([report]):
            cells = dict(zip(COLUMNS, row, strict=True))
            span = "" if cells["low"] is None else f"[{cells['low']:.3f}, {cells['high']:.3f}]"
            figures = [_number(cells["score"], ".3f"), span, _number(cells["n"], "d")]
            figures += [_number(cells["difference"], "+.3f"), _number(cells["p"], ".3g")]
            out.append(f"| {_cell(cells['system'])} | {' | '.join(figures)} |")
        out.append("")
    return "\n".join(out)


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
