"""The tables of a comparison: all numbers as CSV, what people read as Markdown and LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from moco_core import ConfigError, RunResult, compare, make_reports
from moco_core.cli.tables import csv_text, latex_table, seed_rows
from moco_toolkit_comparison import Comparison, by_pool, costs, over_datasets, over_subsets, study
from moco_toolkit_comparison.costs import QUANTITIES

__all__ = ["text_of"]

Rows = list[dict[str, Any]]
_ESCAPED = re.compile(r"[\\|`*<]")
"""What Markdown reads as more than a letter."""


def text_of(runs: Sequence[RunResult], table: str, form: str) -> str:
    """Return a table of the comparison of runs. Raises ConfigError if it has no rows."""
    rows = _TABLES[table]([Comparison(report) for report in make_reports(runs)])
    if not rows:
        raise ConfigError(f"--table {table}: these runs have no such rows ({_WHY[table]})")
    if form == "csv":
        return csv_text(rows)
    cells = _read(table, rows)
    sides = "".join("l" if all(_is_text(row[i]) for row in cells[1:]) else "r" for i in range(len(cells[0])))
    return _markdown(cells, sides) if form == "markdown" else latex_table(cells, sides)


# ---------------------------------------------------------------- rows


def _systems(comparisons: Sequence[Comparison]) -> Rows:
    out = []
    for c in comparisons:
        where = {"dataset": c.report.dataset, "metric": c.report.metric}
        for s in c.standings:
            score, versus, row = s.row.estimate, s.row.versus, s.row
            low, high = s.gap_interval or (None, None)
            out.append(
                {
                    **where,
                    "system": s.label,
                    "role": row.role,
                    "best_single": row.best,
                    "seeds": len(row.runs),
                    "score": score and score.mean,
                    "low": score and score.low,
                    "high": score and score.high,
                    "n": score.n if score else 0,
                    "seed_sd": s.seed_sd,
                    "difference": versus and versus.difference,
                    "difference_low": versus and versus.low,
                    "difference_high": versus and versus.high,
                    "p": versus and versus.p_value,
                    "p_holm": s.p_holm,
                    "group": s.group,
                    "gap_closed": s.gap,
                    "gap_closed_low": low,
                    "gap_closed_high": high,
                    "emergence": s.emergence and s.emergence.share,
                    **{
                        f"emergence_{name.replace(' ', '_')}": e.share if (e := s.control_emergence.get(name)) else None
                        for name in ("equal budget", "self")
                    },
                    "verdict": s.verdict and s.verdict.decision,
                    "failed": row.total(lambda r: r.failed),
                    "unparsed": row.mean(lambda r: r.unparsed),
                    "truncated": row.mean(lambda r: r.truncated),
                    **{f"{name}_per_question": s.cost[name].value for name in ("tokens", "seconds", "flops", "money")},
                    "cost_times_best_single": s.times.value,
                    "cost_at_least": s.times.at_least,
                    "pareto": s.efficient,
                }
            )
        for name, value in (("oracle", c.oracle), ("random pick", c.random), ("chance", c.chance)):
            if value is not None:
                out.append(dict.fromkeys(out[-1]) | where | {"system": name, "role": "reference", "score": value})
    return out


def _seeds(comparisons: Sequence[Comparison]) -> Rows:
    return [row for c in comparisons for row in seed_rows(c.report)]


def _subsets(comparisons: Sequence[Comparison]) -> Rows:
    def rows() -> Iterator[dict[str, Any]]:
        for c in comparisons:
            for row in c.report.rows:
                where = {"dataset": c.report.dataset, "metric": c.report.metric, "system": row.label}
                for name, found in row.subsets.items():
                    yield where | {"subset": name, "score": found["mean"], "low": None, "high": None, "n": found["n"]}
                if macro := over_subsets(row):
                    mean = {"score": macro.mean, "low": macro.low, "high": macro.high, "n": sum(macro.parts.values())}
                    yield where | {"subset": "mean of subsets"} | mean

    return [*rows()]


def _datasets(comparisons: Sequence[Comparison]) -> Rows:
    out = []
    for reports in by_pool(c.report for c in comparisons):
        for label in dict.fromkeys(row.label for report in reports for row in report.rows):
            score, against = over_datasets(reports, label), over_datasets(reports, label, minus="best single")
            if score:
                mine = {"system": label, "datasets": len(score.parts)}
                out.append(
                    mine
                    | {"score": score.mean, "low": score.low, "high": score.high}
                    | {
                        "difference": against and against.mean,
                        "difference_low": against and against.low,
                        "difference_high": against and against.high,
                    }
                )
    return out


def _pairs(comparisons: Sequence[Comparison]) -> Rows:
    out = []
    for c in comparisons:
        for i, a in enumerate(c.scored):
            for j, b in enumerate(c.scored[:i]):
                found = compare(b.units, a.units, c.report.seeds[0], c.rule.level)
                if found is None:
                    continue
                out.append(
                    {
                        "dataset": c.report.dataset,
                        "metric": c.report.metric,
                        "system": b.label,
                        "other": a.label,
                        "difference": found.difference,
                        "difference_low": found.low,
                        "difference_high": found.high,
                        "wins": found.wins,
                        "losses": found.losses,
                        "p": found.p_value,
                        "p_holm": float(c.p_values[i, j]),
                        "n": found.n,
                    }
                )
    return out


def _costs(comparisons: Sequence[Comparison]) -> Rows:
    out = []
    for c in comparisons:
        for row in c.report.rows:
            for run in row.runs:
                for line in costs(run):
                    amounts = {name: line.amounts[name] for name in QUANTITIES}
                    out.append(
                        {"dataset": c.report.dataset, "system": row.label, "seed": run.seed}
                        | {"phase": line.phase, "cost_role": line.role, "model": line.model}
                        | {name: amount.value for name, amount in amounts.items()}
                        | {
                            f"saved_{name}": line.saved.get(name)
                            for name in ("prompt", "completion", "seconds", "money")
                        }
                        | {"at_least": " ".join(name for name, amount in amounts.items() if amount.at_least)}
                    )
    return out


def _study(comparisons: Sequence[Comparison]) -> Rows:
    return [dict(zip(("quantity", "here", "published", "what"), row, strict=True)) for row in study(comparisons).rows()]


_TABLES: dict[str, Callable[[Sequence[Comparison]], Rows]] = {
    "systems": _systems,
    "seeds": _seeds,
    "subsets": _subsets,
    "datasets": _datasets,
    "pairs": _pairs,
    "costs": _costs,
    "study": _study,
}
_WHY = {
    "systems": "no run could be read",
    "seeds": "no run could be read",
    "subsets": "their questions have no subsets",
    "datasets": "no system has scores on two datasets",
    "pairs": "there are no two systems with scores on one dataset",
    "costs": "no cost was recorded",
    "study": "no method stands beside a best single model",
}


# ---------------------------------------------------------------- as people read them

_SPANS = {"score": ("low", "high", ".3f"), "difference": ("difference_low", "difference_high", "+.3f")}
_FORMS = {
    "score": ".3f", "seed_sd": ".3f", "difference": "+.3f", "gap_closed": ".0%", "emergence": ".1%", "unparsed": ".1%",
    "truncated": ".1%", "tokens_per_question": ",.0f", "money_per_question": ".3g", "cost_times_best_single": ".2g",
    "here": ".1%", "published": ".1%",
    "seconds": ".3g", "flops": ".2e", "money": ".3g", "prompt": ",.0f", "completion": ",.0f", "calls": ",.0f",
}  # fmt: skip
_HEADINGS = {
    "difference": "vs best",
    "p_holm": "p Holm",
    "gap_closed": "gap",
    "cost_times_best_single": "cost",
    "cost_role": "role",
}
_READ = {
    "systems": "dataset system score seed_sd difference p p_holm group gap_closed cost_times_best_single verdict n",
    "seeds": "dataset system seed score difference p n",
    "subsets": "dataset system subset score n",
    "datasets": "system datasets score difference",
    "pairs": "dataset system other difference p p_holm wins losses n",
    "study": "quantity here published what",
    "costs": "dataset system seed phase cost_role model calls prompt completion seconds flops money",
}


def _read(table: str, rows: Rows) -> list[list[str]]:
    """Return heading and cells of the columns that say something."""
    names = [n for n in _READ[table].split() if any(row[n] not in (None, "") for row in rows)]
    if "dataset" in names and len({row["dataset"] for row in rows}) == 1 and len(names) > 1:
        names.remove("dataset")
    headings = _HEADINGS | ({"difference": "difference"} if table == "pairs" else {})
    return [[headings.get(n, n) for n in names], *([_cell(n, row) for n in names] for row in rows)]


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if value is None:
        return ""
    if name in ("p", "p_holm"):
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    text = f"{value:{_FORMS[name]}}" if name in _FORMS and not isinstance(value, str) else " ".join(str(value).split())
    if name == "cost_times_best_single":
        text = f"{'>=' if row['cost_at_least'] else ''}{value:{'.0f' if value >= 10 else '.2g'}}x"
    if name in _SPANS and (low := row.get(_SPANS[name][0])) is not None:
        form = _SPANS[name][2]
        text += f" [{low:{form}}, {row[_SPANS[name][1]]:{form}}]"
    return text


def _markdown(cells: Sequence[Sequence[str]], sides: str) -> str:
    def line(row: Sequence[str]) -> str:
        return f"| {' | '.join(_ESCAPED.sub(_escape, cell) for cell in row)} |"

    rule = f"| {' | '.join({'l': '---', 'r': '---:'}[side] for side in sides)} |"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:]), ""])


def _escape(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _is_text(cell: str) -> bool:
    return re.match(r"(<|>=)?[+-]?\d", cell) is None
