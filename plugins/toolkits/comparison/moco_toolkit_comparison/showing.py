"""The table that ``moco run`` and ``moco bench`` print: as wide as the terminal, with what says something; and findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from rich.cells import cell_len
from rich.text import Text

from moco_core import ConfigError, Report, suggest
from moco_toolkit_comparison.aggregates import over_subsets
from moco_toolkit_comparison.comparing import Comparison, Standing
from moco_toolkit_comparison.words import brief, findings

__all__ = ["COLUMNS", "Shown", "shown"]

WIDEST = 120
_NAME = 28
_SUBSETS, _SYSTEMS = 24, 6
"""How large a table of subsets is shown."""


@attrs.frozen
class Column:
    """A column: its heading, how early it goes where there is no room (0: never), when it says anything, and its cells."""

    heading: str
    rank: int
    cell: Callable[[Standing], str]
    needed: Callable[[Comparison], bool] = lambda c: True


def _p(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _score(s: Standing) -> str:
    if s.row.estimate is not None:
        return f"{s.row.estimate.mean:.3f}"
    return next((r.status for r in s.row.runs if r.status != "finished"), "-")


def _versus(s: Standing) -> str:
    if s.row.versus is not None:
        return f"{s.row.versus.difference:+.3f}"
    return "best" if s.row.best else ""


def _times(s: Standing) -> str:
    return "" if s.times.value is None else s.times.text(".2g" if s.times.value < 10 else ".0f") + "x"


def _n(s: Standing) -> str:
    count = s.row.total(lambda r: r.failed)
    return f"{s.row.estimate.n if s.row.estimate else 0}" + (f" ({count} failed)" if count else "")


def _emergence(s: Standing) -> str:
    """Return the share, and that of the equal-budget control where there is one."""
    if s.emergence is None or s.emergence.share is None:
        return ""
    control = s.control_emergence.get("equal budget")
    beside = f" vs {control.share:.1%}" if control and control.share is not None else ""
    return f"{s.emergence.share:.1%}{beside}"


def _any(what: Callable[[Any], float]) -> Callable[[Comparison], bool]:
    return lambda c: any(what(r) >= 0.0005 for row in c.report.rows for r in row.runs)


COLUMNS = {
    "system": Column("system", 0, lambda s: _name(s)),
    "score": Column("score", 0, _score),
    "interval": Column(
        "95% interval",
        6,
        lambda s: f"[{s.row.estimate.low:.3f}, {s.row.estimate.high:.3f}]" if s.row.estimate else "",
    ),
    "sd": Column(
        "sd",
        9,
        lambda s: "" if s.seed_sd is None else f"{s.seed_sd:.3f}",
        lambda c: len(c.report.seeds) > 1,
    ),
    "versus": Column("vs best", 0, _versus, lambda c: c.report.best is not None),
    "difference": Column(
        "95% interval",
        7,
        lambda s: f"[{s.row.versus.low:+.3f}, {s.row.versus.high:+.3f}]" if s.row.versus else "",
        lambda c: c.report.best is not None,
    ),
    "p": Column(
        "p", 1, lambda s: _p(s.row.versus.p_value if s.row.versus else None), lambda c: c.report.best is not None
    ),
    "holm": Column("p Holm", 3, lambda s: _p(s.p_holm), lambda c: c.report.best is not None),
    "group": Column("group", 2, lambda s: s.group),
    "gap": Column("gap", 4, lambda s: "" if s.gap is None else f"{s.gap:.0%}", lambda c: c.report.best is not None),
    "cost": Column("cost", 5, _times, lambda c: c.report.best is not None),
    "verdict": Column(
        "verdict",
        1,
        lambda s: s.verdict.decision if s.verdict else "",
        lambda c: any(r.role == "control" for r in c.report.rows),
    ),
    "n": Column("n", 8, _n),
    "unparsed": Column(
        "no answer", 10, lambda s: f"{s.row.mean(lambda r: r.unparsed):.1%}", _any(lambda r: r.unparsed)
    ),
    "cut": Column("cut", 11, lambda s: f"{s.row.mean(lambda r: r.truncated):.1%}", _any(lambda r: r.truncated)),
    "tokens": Column("tokens/q", 12, lambda s: s.cost["tokens"].text()),
}
"""Beside these, ``--columns`` takes the names in ``MORE``."""

MORE = {
    "money": Column("money/q", 13, lambda s: s.cost["money"].text(".3g")),
    "seconds": Column("s/q", 13, lambda s: s.cost["seconds"].text(".3g")),
    "flops": Column("FLOPs/q", 13, lambda s: s.cost["flops"].text(".2e")),
    "calls": Column("calls/q", 13, lambda s: s.cost["calls"].text(".1f")),
    "emergence": Column("emergence", 13, lambda s: _emergence(s)),
}


@attrs.frozen
class Shown:
    """A report as it is shown."""

    comparison: Comparison

    def data(self) -> dict[str, Any]:
        return self.comparison.data() | {"findings": findings(self.comparison)}

    def lines(self, width: int = WIDEST, columns: Sequence[str] = ()) -> list[Text]:
        """Return the table and what stands below it, in at most ``width`` columns.

        ``columns`` says which are shown, however wide; by default those that say something, as far as there is room. Raises
        ConfigError for an unknown one.
        """
        report, wide = self.comparison.report, min(width, WIDEST)
        out = [Text(line, style="bold") for line in _folded(_heading(report), wide)]
        out += self._table(wide, columns)
        out += [Text(line) for sentence in findings(self.comparison) for line in _folded(sentence, wide)]
        if self._marked:
            out += [Text(line) for line in _folded("! This system's runs have warnings of their own (run.json).", wide)]
        out += [Text(line) for line in self._extra_metrics(wide)]
        out += [Text(line) for line in self._subsets(wide)]
        lost = dict.fromkeys(run.left_out for r in report.rows for run in r.runs if run.left_out)
        return out + [Text(line) for text in lost for line in ("", f"left out of {report.dataset}: {text}")]

    def _table(self, width: int, wanted: Sequence[str]) -> list[Text]:
        if wanted:
            shown = _columns(["system", *wanted])
        else:
            shown = [c for c in COLUMNS.values() if c.needed(self.comparison)]
        table = self._cells(shown)
        while not wanted and _width(table) > width and (last := max(c.rank for c in shown)):
            shown = [c for c in shown if c.rank != last]
            table = self._cells(shown)
        widths = [max(map(cell_len, column)) for column in zip(*(cells for cells, _ in table), strict=True)]
        return [Text("  ".join(_padded(cells, widths)).rstrip(), style=style) for cells, style in table]

    def _cells(self, columns: Sequence[Column]) -> list[tuple[list[str], str]]:
        table = [([c.heading for c in columns], "")]
        comparison, limit = self.comparison, None
        for name, value in (("chance", comparison.chance), ("random pick", comparison.random)):
            if value is not None:
                table.append((_floor(name, value, columns), "dim"))
        for standing in comparison.standings:
            if standing.row.role == "method" and limit is None and comparison.oracle is not None:
                limit = _floor("oracle (ceiling)", comparison.oracle, columns)
                table.append((limit, "dim"))
            cells = [c.cell(standing) for c in columns]
            table.append(
                ([f"{cells[0]}{' !' if standing.label in self._marked else ''}", *cells[1:]], _style(standing))
            )
        return table

    @property
    def _marked(self) -> set[str]:
        """The systems with warnings that not all have: another model answered than was asked, a fit went wrong."""
        found = {r.label: {w for run in r.runs for w in run.warnings} for r in self.comparison.report.rows}
        shared = set.intersection(*found.values()) if len(found) > 1 else set()
        return {label for label, warnings in found.items() if warnings - shared}

    def _extra_metrics(self, width: int) -> list[str]:
        """Return what metrics and abstentions add (macro F1, coverage), as far as it fits."""
        rows = [r for r in self.comparison.report.rows if r.extra_metrics]
        names = [n for n in dict.fromkeys(n for r in rows for n in r.extra_metrics) if n != "subset_mean"]
        if not names:
            return []
        table = [["system", *names]]
        table += [[brief(r.label, _NAME), *(_figure(r.extra_metrics.get(n)) for n in names)] for r in rows]
        lines = _aligned(table)
        return (
            ["", *lines] if max(map(cell_len, lines)) <= width else ["", f"extra metrics in --json: {', '.join(names)}"]
        )

    def _subsets(self, width: int) -> list[str]:
        """Return the scores per subset, where some subset sees the systems in another order than the whole does."""
        found = [(r, subsets) for r in self.comparison.scored if (subsets := r.subsets)]
        rows, scores = [r for r, _ in found], [subsets for _, subsets in found]
        names = sorted({name for subsets in scores for name in subsets})
        if len(names) < 2 or not _says_more(scores, names):
            return []
        if len(names) > _SUBSETS or len(rows) > _SYSTEMS:
            return ["", f"{len(names)} subsets see the systems in other orders: their scores are in --json"]
        header = ["subset", *(brief(r.label, 16) for r in rows), "n"]
        table = [header]
        for name in names:
            mine = [subsets.get(name) for subsets in scores]
            size = max(int(f["n"]) for f in mine if f)
            cells = [f"{f['mean']:.3f}" if f else "-" for f in mine]
            table.append([brief(name, _NAME), *cells, f"{size}{' (few)' if size < 20 else ''}"])
        macro = [over_subsets(r) for r in rows]
        table.append(["mean of subsets", *(f"{m.mean:.3f}" if m else "-" for m in macro), ""])
        lines = _aligned(table)
        if max(map(cell_len, lines)) > width:
            return ["", f"{len(names)} subsets see the systems in other orders: their scores are in --json"]
        return ["", *lines]


def shown(reports: Sequence[Report], columns: Sequence[str] = ()) -> list[Shown]:
    """Return reports as they are shown: the entry point of the group ``moco.report``.

    Raises ConfigError for a name among ``columns`` that is none, also where there is nothing to show yet.
    """
    _columns(columns)
    return [Shown(Comparison(report)) for report in reports]


def _columns(names: Sequence[str]) -> list[Column]:
    known = {**COLUMNS, **MORE}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"--columns: {unknown[0]}: no such column{suggest(unknown[0], known)}; there are {', '.join(known)}"
        )
    return [known[name] for name in dict.fromkeys(names)]


def _heading(report: Report) -> str:
    best = f"best single model chosen on {report.chosen_on}" if report.chosen_on else "no single model was run"
    seeds = f"seed{'s' if len(report.seeds) > 1 else ''} {', '.join(map(str, report.seeds))}"
    return f"{report.dataset}, {seeds}, metric {report.metric}; {best}"


def _name(s: Standing) -> str:
    if s.row.role == "baseline":
        return f"{brief(s.label, _NAME - 9)} (single)"
    return brief(s.label, _NAME)


def _style(s: Standing) -> str:
    if s.row.role == "control":
        return "dim"
    if s.row.role == "method" and s.row.versus is not None and s.row.versus.p_value < 0.05:
        return "green" if s.row.versus.difference > 0 else "red"
    return "bold" if s.row.best else ""


def _floor(name: str, value: float, columns: Sequence[Column]) -> list[str]:
    cells = {"system": name, "score": f"{value:.3f}"}
    if name == "chance":  # of the questions that no single model got right, too
        cells["emergence"] = f"{value:.1%}"
    return [cells.get(c.heading, "") for c in columns]


def _width(table: Sequence[tuple[Sequence[str], str]]) -> int:
    widths = [max(map(cell_len, column)) for column in zip(*(cells for cells, _ in table), strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(_padded(row, widths)).rstrip() for row in table]


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return cells as wide as their columns on a terminal, the first to the left, the others to the right."""
    spaces = [" " * (w - cell_len(c)) for c, w in zip(cells, widths, strict=True)]
    return [c + space if i == 0 else space + c for i, (c, space) in enumerate(zip(cells, spaces, strict=True))]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value.is_integer() and abs(value) > 1 else f"{value:,.3f}"


def _says_more(scores: Sequence[Mapping[str, Mapping[str, float]]], names: Sequence[str]) -> bool:
    """Whether in some subset a system that is not the best of all scores best, alone."""
    for name in names:
        found = [subsets.get(name, {"mean": -1.0})["mean"] for subsets in scores]
        if len(found) > 1 and max(found[1:]) > found[0]:
            return True
    return False


def _folded(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line else lines
