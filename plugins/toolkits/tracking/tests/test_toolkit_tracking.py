"""Trackers behind one observer: what they are told, that they hold nothing up, and what happens when they fail."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from moco_core.errors import ConfigError, MocoError
from moco_core.events import BenchmarkFinished, BenchmarkStarted, RunFinished, RunNoted, RunStarted
from moco_core.runs.observe import Observers
from moco_toolkit_tracking import (
    Tracker,
    TrackingObserver,
    TrackingOptions,
    closing,
    flat,
    points,
    report_text,
    safe,
    silenced,
    table,
)

REPORTS = [
    {
        "dataset": "skills",
        "seeds": [0, 1],
        "metric": "exact_match",
        "rows": [
            {
                "label": "a|b",
                "role": "baseline",
                "score": {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8, "method": "wilson"},
                "versus_best_single": None,
                "calls": 8,
                "status": "finished",
            },
            {"label": "vote", "role": "method", "score": None, "versus_best_single": None, "status": "failed"},
        ],
    }
]


class Book:
    """A tracker in memory; ``breaks`` may raise or wait wherever it is told something."""

    def __init__(self, breaks: Callable[[str], None] = lambda what: None) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.breaks = breaks

    def open(self, name: str, group: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> Any:
        self.breaks("open")
        self.lines.append(("open", name, group, dict(config), tags.get("method")))
        return Page(self, name)


class Page:
    def __init__(self, book: Book, name: str) -> None:
        self.book, self.name = book, name

    def curve(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        self.book.breaks("curve")
        self.book.lines.append(("curve", self.name, prefix, step, dict(values)))

    def report(self, columns: Sequence[str], rows: Sequence[Any], text: str, files: Sequence[Path]) -> None:
        self.book.lines.append(("report", [f.name for f in files], [f.read_text() != "" for f in files], len(rows)))

    def close(self, status: str, figures: Mapping[str, float]) -> None:
        self.book.lines.append(("close", self.name, status, dict(figures)))


def watcher(book: Book, **options: Any) -> TrackingObserver[Any]:
    class Watcher(TrackingObserver[TrackingOptions]):
        library = "json"

        def connect(self) -> Tracker:
            book.breaks("connect")
            return book

    return Watcher(TrackingOptions(**options))


def tell(observers: Observers, *, reports: Sequence[Any] = REPORTS) -> None:
    """Tell of a grid of two runs that overlap."""
    config = {"method": {"name": "vote"}, "seed": 0}
    observers.tell("moco_benchmark_started", BenchmarkStarted(runs=2, folder=Path("somewhere/runs")))
    for run in "ab":
        observers.tell("moco_run_started", RunStarted(run_id=run, folder=Path(run), config=config, label=run))
    for run in "ab":
        for data in ({"dev_scores": {"m": 0.5}}, {"step": 7, "score": 0.25}, {"label": "words"}, {"gamma": 0.1}):
            observers.tell("moco_run_noted", RunNoted(run_id=run, phase="fit", data=data))
    for run, status in (("b", "failed"), ("a", "finished")):
        finished = RunFinished(run_id=run, folder=Path(run), status=status, summary={"score": None, "failed": 2})  # type: ignore[arg-type]
        observers.tell("moco_run_finished", finished)
    observers.tell(
        "moco_benchmark_finished", BenchmarkFinished(folder=Path("somewhere/runs"), status="failed", reports=reports)
    )


def observed(book: Book, **options: Any) -> list[str]:
    lines: list[str] = []
    tell(Observers(None, [watcher(book, **options)], report=lines.append))
    return lines


def test_runs_that_overlap_are_filed_apart_and_lines_without_a_step_are_counted() -> None:
    book = Book()
    assert observed(book) == []
    told = [line for line in book.lines if "a" in line]
    assert told == [
        ("open", "a", "runs", {"method": {"name": "vote"}, "seed": 0}, "vote"),
        ("curve", "a", "fit", 0, {"dev_scores/m": 0.5}),
        ("curve", "a", "fit", 7, {"score": 0.25}),
        ("curve", "a", "fit", 3, {"gamma": 0.1}),
        ("close", "a", "finished", {"failed": 2.0}),
    ]
    assert ("close", "b", "failed", {"failed": 2.0}) in book.lines
    assert book.lines[-3:] == [
        ("open", "report", "runs", {}, None),
        ("report", ["report.json", "report.md"], [True, True], 2),
        ("close", "report", "failed", {}),
    ]


def test_a_group_can_be_named_and_a_grid_without_a_report_files_none() -> None:
    book, lines = Book(), []
    tell(Observers(None, [watcher(book, group="mine")], report=lines.append), reports=())
    assert {line[2] for line in book.lines if line[0] == "open"} == {"mine"}
    assert not any("report" in line for line in book.lines)


@pytest.mark.parametrize("where", ["connect", "open", "curve"])
def test_a_tracker_that_fails_is_reported_once_and_told_nothing_more(where: str) -> None:
    def breaks(what: str) -> None:
        if what == where:
            raise OSError("no route to host")

    book = Book(breaks)
    (line,) = observed(book)
    assert line.startswith("observer ") and line.endswith("OSError: no route to host")
    assert not any(line[0] in ("close", "report") for line in book.lines)


def test_a_tracker_that_hangs_holds_no_run_up_and_its_end_is_bounded() -> None:
    release = threading.Event()

    def breaks(what: str) -> None:
        release.wait()

    book = Book(breaks)
    (line,) = observed(book, wait=0.2)
    assert "json had not taken everything after 0.2 s" in line and not book.lines
    release.set()


def test_a_tracker_that_exits_ends_the_observer_alone() -> None:
    def breaks(what: str) -> None:
        raise SystemExit("no key")

    (line,) = observed(Book(breaks))
    assert line.endswith(": json gave up: no key")


def test_a_library_that_is_missing_is_named_with_the_command() -> None:
    class Absent(TrackingObserver[TrackingOptions]):
        library = "no_such_tracker"

        def connect(self) -> Tracker:
            raise AssertionError

    with pytest.raises(ConfigError, match="no_such_tracker is not installed: pip install no_such_tracker"):
        Absent(TrackingOptions())


def test_what_is_no_number_makes_no_point() -> None:
    data = {"step": True, "kept": True, "score": float("nan"), "best": None, "n": 3, "deep": {"a b@c": 1, "t": "x"}}
    assert points("fit", data) == ("fit", None, {"n": 3.0, "deep/a b_c": 1.0})
    assert points("fit", {"training": "m@sft", "step": 2, "loss": 1.5}) == ("training/m_sft", 2, {"loss": 1.5})


def test_the_figures_of_an_end_are_score_shares_and_costs_with_their_sums() -> None:
    row = {
        "prompt": 10,
        "completion": 2,
        "calls": 3,
        "cached": 1,
        "seconds": 0.5,
        "money": 0.25,
        "saved": {"prompt": 4},
    }
    summary = {
        "score": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 10, "kind": "wilson"},
        "extra_metrics": {"f1": 0.3},
        "subsets": {"easy": {"mean": 0.7, "n": 4}},
        "dev_mean": None,
        "failed": 1,
        "tokens": {
            "fit": {"m": row},
            "respond": {"m": row, "n": {"prompt": 1, "completion": 1, "calls": 1, "cached": 0}},
        },
        "timings": {"total": 9.0},
        "error": "",
    }
    found = closing(summary)
    assert {k: v for k, v in found.items() if not k.startswith("cost")} == {
        "score/mean": 0.5,
        "score/low": 0.4,
        "score/high": 0.6,
        "score/n": 10.0,
        "extra_metrics/f1": 0.3,
        "subset/easy": 0.7,
        "failed": 1.0,
        "seconds/total": 9.0,
    }
    assert found["cost/fit/m/saved/prompt"] == 4.0
    totals = {k: v for k, v in found.items() if k.startswith("cost/total/")}
    assert totals == {
        "cost/total/prompt": 21.0,
        "cost/total/completion": 5.0,
        "cost/total/calls": 7.0,
        "cost/total/cached": 2.0,
        "cost/total/money": 0.5,
    }
    assert closing({"score": None}) == {}


def test_the_table_has_a_row_per_system_and_none_for_what_is_unknown() -> None:
    first, second = table(REPORTS)
    assert first[:7] == ["skills", "a|b", "baseline", 0.5, 0.25, 0.75, 8] and second[3:7] == [None] * 4
    text = report_text(REPORTS)
    assert "| a\\|b | 0.500 | [0.250, 0.750] | 8 |  |  |" in text and "seeds 0, 1" in text


def test_nested_configuration_becomes_dotted_names() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert safe("m@1/x y") == "m_1/x y"


def test_only_the_calling_thread_is_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with silenced():
        print("mine")
        other = threading.Thread(target=print, args=("theirs",))
        other.start()
        other.join()
    assert out.getvalue() == "theirs\n"


def test_problems_of_ours_are_told_as_they_are() -> None:
    def breaks(what: str) -> None:
        raise MocoError("no key; log in")

    (line,) = observed(Book(breaks))
    assert line.endswith(": no key; log in") and "MocoError" not in line
