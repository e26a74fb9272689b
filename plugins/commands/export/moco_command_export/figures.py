"""Figures for papers: scores as a forest plot, and score against cost with the Pareto front, as PDF and SVG."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moco_command_export.samples import file_name
from moco_core import ConfigError, RunResult, StoreError, make_reports
from moco_toolkit_comparison import Comparison
from moco_toolkit_comparison.words import brief

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["forest", "pareto", "write_figures"]

_COLOURS = {"method": "#1f4e79", "baseline": "#7f7f7f", "control": "#bdbdbd"}
_AXES = {"tokens": "tokens per question", "money": "money per question"}


def write_figures(runs: Sequence[RunResult], folder: Path) -> list[str]:
    """Write both figures of every comparison and return their paths. Raises ConfigError without matplotlib, StoreError."""
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("--to figures: needs matplotlib; pip install 'moco-command-export[figures]'") from None
    comparisons = [c for c in map(Comparison, make_reports(runs)) if c.scored]
    if not comparisons:
        raise ConfigError("--to figures: none of these runs has scores")
    said: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "moco", "pdf.fonttype": 42, "font.size": 9}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that no installed font has are drawn as boxes
        for number, comparison in enumerate(comparisons, 1):
            stem = file_name(comparison.report.dataset)
            stem = stem if len(comparisons) == 1 else f"{number}_{stem}"
            for kind, draw in (("forest", forest), ("pareto", pareto)):
                figure = draw(comparison)
                for ending, facts in (("pdf", {"CreationDate": None}), ("svg", {"Date": None})):
                    path = folder / f"{stem}_{kind}.{ending}"
                    try:
                        figure.savefig(path, metadata=facts, bbox_inches="tight")
                    except OSError as error:
                        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None
                    said.append(str(path))
    return said


def forest(comparison: Comparison) -> Figure:
    """Return every system's score with its 95 % interval, best at the top; lines mark the best single model and the oracle."""
    rows = comparison.scored
    axes = _axes(comparison, height=0.9 + 0.26 * len(rows))
    for place, row in enumerate(rows):
        score = row.estimate
        assert score is not None, "scored systems have an estimate"
        axes.plot([score.low, score.high], [place, place], color=_COLOURS[row.role], linewidth=1.2)
        axes.plot([score.mean], [place], color=_COLOURS[row.role], marker="D" if row.best else "o", markersize=4)
    for value, style in ((comparison.oracle, ":"), (_best(comparison), "--"), (comparison.chance or None, "-.")):
        if value is not None:
            axes.axvline(value, color="#999999", linestyle=style, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), labels=[brief(row.label, 32) for row in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("score (-- best single model, : oracle, -. chance)", parse_math=False)
    return _of(axes)


def pareto(comparison: Comparison) -> Figure:
    """Return score against cost per question; the front as a line, the best single model at growing budgets as a dashed one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    unit, axes = comparison.unit, _axes(comparison, height=3.2)
    points = [(s, s.cost[unit].value, s.row.estimate.mean) for s in comparison.standings if s.row.estimate]
    known = [(s, cost, score) for s, cost, score in points if cost is not None]
    for s, cost, score in known:
        axes.plot(
            [cost], [score], color=_COLOURS[s.row.role], marker="D" if s.row.best else "o", markersize=5, linestyle=""
        )
        if s.row.role != "control":  # those are grey, and beside their method
            axes.annotate(
                brief(s.label, 32), (cost, score), xytext=(4, 4), textcoords="offset points", fontsize=7, parse_math=False
            )
    front = sorted((cost, score) for s, cost, score in known if s.efficient)
    axes.plot([c for c, _ in front], [score for _, score in front], color="#1f4e79", linewidth=0.9, zorder=0)
    if len(curve := comparison.curve()) > 1:
        axes.plot(
            [c for c, _ in curve], [s for _, s in curve], color="#999999", linestyle="--", linewidth=0.9, zorder=0
        )
    if known and min(cost for _, cost, _ in known) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_AXES[unit])
    axes.set_ylabel("score")
    return _of(axes)


def _axes(comparison: Comparison, height: float) -> Axes:
    from matplotlib.figure import Figure

    axes: Any = Figure(figsize=(5.2, height)).add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{comparison.report.dataset} ({comparison.report.metric})", fontsize=9, parse_math=False)
    found: Axes = axes
    return found


def _of(axes: Axes) -> Figure:
    from matplotlib.figure import Figure

    assert isinstance(axes.figure, Figure)
    return axes.figure


def _best(comparison: Comparison) -> float | None:
    best = comparison.report.best
    return best.estimate.mean if best is not None and best.estimate else None
