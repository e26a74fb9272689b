"""Reports as tables for other programs: plain rows, and CSV, LaTeX and HTML made of them."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moco_core.runs.report import Report
from moco_core.runs.stats import compare, estimate

_SHORT = ("dataset", "system", "seed", "score", "difference", "p", "n")
"""What LaTeX and notebooks show."""

_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": "$<$",
    ">": "$>$",
}


def seed_rows(report: Report) -> list[dict[str, Any]]:
    """Return one row per system and seed; ``difference`` and ``p`` compare with the best single model with the same seed."""
    best = {r.seed: r for r in report.best.runs} if report.best else {}
    out = []
    for row in report.rows:
        for run in row.runs:
            score = estimate(run.units, run.seed)
            other = None if row.best else best.get(run.seed)
            versus = compare(run.units, other.units, run.seed) if other else None
            out.append(
                {
                    "dataset": report.dataset,
                    "metric": report.metric,
                    "system": row.label,
                    "role": row.role,
                    "best_single": row.best,
                    "seed": run.seed,
                    "score": score.mean if score else None,
                    "low": score.low if score else None,
                    "high": score.high if score else None,
                    "difference": versus.difference if versus else None,
                    "difference_low": versus.low if versus else None,
                    "difference_high": versus.high if versus else None,
                    "p": versus.p_value if versus else None,
                    "n": score.n if score else 0,
                    "failed": run.failed,
                    "unparsed": run.unparsed,
                    "truncated": run.truncated,
                    "calls": run.calls,
                    "prompt_tokens": run.usage.prompt_tokens,
                    "completion_tokens": run.usage.completion_tokens,
                    "seconds": run.seconds,
                    "status": run.status,
                    "folder": str(run.folder),
                }
            )
    return out


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV with a heading; what is not known is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def latex_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return a booktabs table of the columns that people read."""
    return latex_table(_cells(rows), "ll" + "r" * (len(_SHORT) - 2))


def latex_table(cells: Sequence[Sequence[str]], sides: str) -> str:
    """Return a booktabs table of a heading and rows; ``sides`` says of every column whether it stands left or right (l, r)."""
    lines = [" & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in line) + r" \\" for line in cells]
    frame = [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*frame, *lines[1:], r"\bottomrule", r"\end{tabular}", ""])


def html_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return the same table for a notebook."""
    head, *body = ([html.escape(cell) for cell in line] for line in _cells(rows))
    lines = [f"<tr>{''.join(f'<td>{c}</td>' for c in line)}</tr>" for line in body]
    return f"<table><tr>{''.join(f'<th>{c}</th>' for c in head)}</tr>{''.join(lines)}</table>"


def written(text: str, path: Path | str | None) -> str:
    """Return a text, and write it to a file if one is given."""
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def _cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [list(_SHORT), *([_cell(name, row[name]) for name in _SHORT] for row in rows)]


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:+.3f}" if name == "difference" else "<0.001" if name == "p" and value < 0.001 else f"{value:.3f}"
    return str(value)
