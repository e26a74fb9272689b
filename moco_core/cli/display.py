"""What people see: live progress and tables on a terminal, plain lines when the output is piped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from moco_core.catalogue import Catalogue
from moco_core.cli.screen import printable, say
from moco_core.errors import ConfigError
from moco_core.events import BenchmarkStarted, RunFinished, RunProgress, RunStarted
from moco_core.hookspecs import hookimpl
from moco_core.runs.report import Report, Row, shown
from moco_core.types import CallRecord, Span

_COLUMNS = ("system", "score", "95% interval", "vs best single", "95% interval", "p", "n", "no answer", "cut", "tokens")
_SURE = 0.05
_LONG = 60
"""Characters from which on a question is written out once."""
_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")


class LiveProgress:
    """An observer that shows what runs are doing: a bar for each that is under way. Without a terminal it prints one line
    per phase.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._opening: TaskID | None = None
        self._grid: TaskID | None = None
        self._labels: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        self._phases: dict[str, dict[str, RunProgress]] = {}

    def __enter__(self) -> LiveProgress:
        if self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    @hookimpl
    def moco_benchmark_started(self, event: BenchmarkStarted) -> None:
        if self._bars is not None:
            self._opening = self._bars.add_task(f"opening {event.models} models", total=None, note="")
            if event.runs > 1:
                self._grid = self._bars.add_task("runs", total=event.runs, note="")

    @hookimpl
    def moco_run_started(self, event: RunStarted) -> None:
        self._labels[event.run_id] = event.label
        self._phases[event.run_id] = {}

    @hookimpl
    def moco_run_progress(self, event: RunProgress) -> None:
        if self._bars is None:
            if event.total and event.done == event.total:
                note = f" {event.note}" if event.note else ""
                say(self._console, f"{self._named(event)}: {event.done}/{event.total}{note}")
            return
        if self._opening is not None:
            self._bars.remove_task(self._opening)
            self._opening = None
        phases = self._phases[event.run_id]
        phases[event.phase] = event
        # of several phases at once, the first that is not done is shown until it is
        shown = next((p for p in phases.values() if p.total is None or p.done < p.total), event)
        if event.run_id not in self._tasks:
            self._tasks[event.run_id] = self._bars.add_task("", total=None, note="")
        self._bars.update(
            self._tasks[event.run_id],
            description=printable(self._named(shown)),
            completed=shown.done,
            total=shown.total,
            note=printable(shown.note),
        )

    @hookimpl
    def moco_run_finished(self, event: RunFinished) -> None:
        if self._bars is not None:
            if event.run_id in self._tasks:
                self._bars.remove_task(self._tasks.pop(event.run_id))
            if self._grid is not None:
                self._bars.advance(self._grid)
        if event.status == "interrupted":
            return  # who stopped it says why
        if event.status == "failed":
            say(self._console, f"{event.run_id}: {event.status}: {event.summary.get('error', '')}")
        elif self._bars is None:
            score, seconds = event.summary.get("score"), event.summary["timings"]["total"]
            text = f"{score['mean']:.3f}" if score else "-"
            say(self._console, f"{event.run_id}: score {text} in {seconds:.1f} s")

    def _named(self, event: RunProgress) -> str:
        label = self._labels[event.run_id]
        return event.phase if label in event.phase else f"{label}: {event.phase}"


def _name(row: Row) -> str:
    return f"{row.label} (single)" if row.role == "baseline" else row.label


def _cells(row: Row) -> list[str]:
    e, v, first = row.estimate, row.versus, row.runs[0]
    name, tokens = _name(row), f"{row.total(lambda r: r.usage.completion_tokens):,}"
    if e is None:
        return [name, first.status.replace("finished", "-"), "", "", "", "", str(first.questions), "", "", tokens]
    cells = [name, f"{e.mean:.3f}", f"[{e.low:.3f}, {e.high:.3f}]"]
    if v is None:
        cells += ["best single" if row.best else "-", "", ""]
    else:
        cells += [f"{v.difference:+.3f}", f"[{v.low:+.3f}, {v.high:+.3f}]", _p(v.p_value)]
    failed = f" ({count} failed)" if (count := row.total(lambda r: r.failed)) else ""
    unparsed, truncated = row.mean(lambda r: r.unparsed), row.mean(lambda r: r.truncated)
    return [*cells, f"{e.n}{failed}", f"{unparsed:.1%}", f"{truncated:.1%}", tokens]


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _heading(report: Report) -> str:
    best = f"best single model chosen on {report.chosen_on}" if report.chosen_on else "no single model was run"
    seeds = f"seed{'s' if len(report.seeds) > 1 else ''} {', '.join(map(str, report.seeds))}"
    return printable(f"{report.dataset}, {seeds}, metric {report.metric}; {best}")


def _style(row: Row) -> str:
    """Return a row's colour: green or red where the printed p says that a method is better or worse."""
    if row.role == "method" and row.versus is not None and row.versus.p_value < _SURE:
        return "green" if row.versus.difference > 0 else "red"
    return "bold" if row.best else "dim" if row.role == "control" else ""


def check_columns(columns: Sequence[str], catalogue: Catalogue) -> None:
    """Refuse a column that no table will have, before any work. Raises ConfigError."""
    if catalogue.plugins("report"):
        shown([], catalogue, columns)
    elif unknown := [c for c in columns if c not in _COLUMNS]:
        raise ConfigError(f"--columns: {unknown[0]}: no such column; there are {', '.join(dict.fromkeys(_COLUMNS))}")


def report_lines(report: Any, width: int, columns: Sequence[str] = ()) -> list[Text]:
    """Return a comparison as lines: as what :func:`~moco_core.runs.report.shown` returned shows it, or plainly.

    ``columns`` names those that are shown, by their headings where it is shown plainly.
    """
    if not isinstance(report, Report):
        lines: list[Text] = report.lines(width, columns)
        return lines
    kept = [i for i, name in enumerate(_COLUMNS) if not columns or not i or name in columns]
    head, *table = plain_table([_COLUMNS[i] for i in kept], [[_cells(r)[i] for i in kept] for r in report.rows])
    out = [Text(_heading(report), style="bold"), Text(head)]
    out += [Text(line, style=_style(row)) for line, row in zip(table, report.rows, strict=True)]
    names = list(dict.fromkeys(n for r in report.rows for n in r.extra_metrics))
    if names:
        cells = [[_name(r), *(_figure(r.extra_metrics.get(n)) for n in names)] for r in report.rows]
        out += [Text(), *map(Text, plain_table(("system", *names), cells))]
    if len(subsets := {name for r in report.rows for name in r.subsets}) > 1:
        out += [Text(), Text(f"{len(subsets)} subsets: their scores stand in every run.json and in the output of --json")]
    lost = dict.fromkeys(run.left_out for r in report.rows for run in r.runs if run.left_out)
    return [*out, *(Text(line) for text in lost for line in ("", f"left out of {report.dataset}: {text}"))]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value.is_integer() and abs(value) > 1 else f"{value:,.3f}"


def report_text(report: Any, width: int = 120, columns: Sequence[str] = ()) -> str:
    """Return a comparison as plain text."""
    return "\n".join(printable(line.plain) for line in report_lines(report, width, columns))


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return aligned lines, the first column to the left, the others to the right."""
    table = [[printable(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(r[i]) for r in table) for i in range(len(columns))]
    return [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))).rstrip()
        for r in table
    ]


def spans_text(spans: Sequence[Span]) -> tuple[Text, list[str]]:
    """Return an answer coloured by the model that wrote each span, and one line per model with its share of tokens."""
    names = list(dict.fromkeys(s.model for s in spans))
    colours = {n: _COLOURS[i % len(_COLOURS)] for i, n in enumerate(names)}
    text = Text()
    for span in spans:
        text.append(printable(span.text), style=colours[span.model])
    total = sum(s.tokens for s in spans) or 1
    legend = []
    for name in names:
        tokens = sum(s.tokens for s in spans if s.model == name)
        legend.append(f"{name} ({colours[name]}): {tokens} tokens, {tokens / total:.0%}")
    return text, legend


def call_lines(calls: Sequence[CallRecord]) -> list[str]:
    """Return who saw what and said what, one block per call.

    A block names the earlier calls whose replies the model reads (2=3: both said the same). A long question is written out
    once.
    """
    out: list[str] = []
    replies: list[str] = []
    question = ""
    for number, call in enumerate(calls, 1):
        seen = call.request if isinstance(call.request, dict) else {}
        turns = seen.get("messages") or ([("text", seen["text"])] if "text" in seen else [])
        shown = "\n".join(_lines_of(content) for _, content in turns)
        reads: dict[str, str] = {}  # of equal replies nobody can tell which one was read
        for n, reply in enumerate(replies, 1):
            if reply.strip() and (text := _lines_of(reply)) in shown:
                reads[text] = f"{reads[text]}={n}" if text in reads else str(n)
        tokens = f"{call.usage.prompt_tokens}+{call.usage.completion_tokens} tokens"
        if isinstance(call.response, dict) and "cached_tokens" in call.response:
            tokens += f", {call.response['cached_tokens']} of them known"
        notes = [call.kind, tokens, "cached" if call.cached else "", f"reads {', '.join(reads.values())}" if reads else ""]
        out.append(f"--- {number}. {call.model} ({', '.join(filter(None, notes))})")
        if turns and number == 1:
            question = turns[-1][1] if len(turns[-1][1]) > _LONG else ""
        elif question:
            turns = [(role, content.replace(question, "[the question, as in 1]")) for role, content in turns]
        out += [f"{role}> {content}" for role, content in turns]
        said = call.response["text"] if isinstance(call.response, dict) and "text" in call.response else call.response
        out.append(f"{call.model}> {said}")
        replies.append(said if isinstance(said, str) else "")
    return out


def _lines_of(text: str) -> str:
    """Return a text between line breaks and without spaces, as which a reply is found again where it was quoted."""
    return f"\n{text.strip()}\n".replace(" ", "")
