"""The observer that trackers are behind: events become work for one thread, so that a slow tracker holds no run up."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, Protocol, TypeVar

import attrs

from moco_core import ConfigError, MocoError, hookimpl, option
from moco_core.events import BenchmarkFinished, BenchmarkStarted, Observer, RunFinished, RunNoted, RunStarted
from moco_toolkit_tracking.figures import COLUMNS, closing, points, report_text, table

__all__ = ["Tracked", "Tracker", "TrackingObserver", "TrackingOptions", "silenced"]


@attrs.frozen(kw_only=True)
class TrackingOptions:
    """What all trackers are told."""

    project: str = option("moco", help="the project (experiment) that runs are filed under")
    group: str = option("", help="what the runs of one grid are grouped by; by default the name of its folder")
    wait: float = option(60.0, gt=0, help="seconds that the end of a grid waits for what is still to be sent")


OptionsT = TypeVar("OptionsT", bound=TrackingOptions)


class Tracked(Protocol):
    """One run in a tracker. All methods are called in the observer's own thread, and may block."""

    def curve(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curves ``prefix/NAME``."""

    def report(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], text: str, files: Sequence[Path]) -> None:
        """Keep a comparison: its table, the table in Markdown, and the files of it."""

    def close(self, status: str, figures: Mapping[str, float]) -> None:
        """End it as ``finished``, ``failed`` or ``interrupted``, with its final figures."""


class Tracker(Protocol):
    """A connection to a tracker."""

    def open(self, name: str, group: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> Tracked:
        """Begin a run; ``config`` is nested JSON data. Several are open at once."""


class TrackingObserver(Observer[OptionsT], ABC):
    """Files every run in a tracker: configuration, curves of fitting and training, score with interval, costs, status. A
    grid's comparison is filed as a run of its own, named ``report``.

    The tracker is imported and spoken to in one thread. What it raises ends the observer, with one line; the runs go on.
    """

    library: ClassVar[str]
    """The tracker's module, which is also its distribution."""

    def __init__(self, options: OptionsT) -> None:
        super().__init__(options)
        if importlib.util.find_spec(self.library) is None:
            raise ConfigError(f"{self.library} is not installed: pip install {self.library}")
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._group = options.group
        self._tracker: Tracker | None = None
        self._open: dict[str, Tracked] = {}
        self._lines: dict[tuple[str, str], int] = {}

    @abstractmethod
    def connect(self) -> Tracker:
        """Import the tracker and connect to it; called once, in the observer's thread."""

    # ---------------------------------------------------------------- in the run's loop

    @hookimpl
    def moco_benchmark_started(self, event: BenchmarkStarted) -> None:
        self._group = self.options.group or event.folder.resolve().name
        self._soon(lambda: None)  # the import begins

    @hookimpl
    def moco_run_started(self, event: RunStarted) -> None:
        self._soon(lambda: self._begin(event))

    @hookimpl
    def moco_run_noted(self, event: RunNoted) -> None:
        self._soon(lambda: self._point(event))

    @hookimpl
    def moco_run_finished(self, event: RunFinished) -> None:
        self._soon(lambda: self._end(event))

    @hookimpl
    def moco_benchmark_finished(self, event: BenchmarkFinished) -> None:
        self._soon(lambda: self._report(event))
        self._work.put(None)
        if self._thread is not None:
            self._thread.join(self.options.wait)
            if self._thread.is_alive():
                raise MocoError(
                    f"{self.library} had not taken everything after {self.options.wait:g} s; the rest is lost"
                )
        self._raise()

    def _soon(self, job: Callable[[], None]) -> None:
        self._raise()
        if self._thread is None:
            # a daemon: a tracker that hangs must not keep the process
            self._thread = threading.Thread(target=self._serve, name=f"moco-{self.library}", daemon=True)
            self._thread.start()
        self._work.put(job)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # ---------------------------------------------------------------- in the observer's thread

    def _serve(self) -> None:
        try:
            self._tracker = self.connect()
            while (job := self._work.get()) is not None:
                job()
        except (Exception, SystemExit) as error:
            self._error = error if isinstance(error, Exception) else MocoError(f"{self.library} gave up: {error}")

    def _begin(self, event: RunStarted) -> None:
        assert self._tracker is not None
        names = {
            part: str(event.config.get(part, {}).get("name", "")) for part in ("method", "dataset", "pool", "metric")
        }
        tags = {"label": event.label, **names, "folder": str(event.folder)}
        self._open[event.run_id] = self._tracker.open(event.run_id, self._group, event.config, tags)

    def _point(self, event: RunNoted) -> None:
        prefix, step, values = points(event.phase, event.data)
        line = self._lines.get((event.run_id, prefix), 0)
        self._lines[event.run_id, prefix] = line + 1
        if values and event.run_id in self._open:
            self._open[event.run_id].curve(prefix, line if step is None else step, values)

    def _end(self, event: RunFinished) -> None:
        if run := self._open.pop(event.run_id, None):
            run.close(event.status, closing(event.summary))

    def _report(self, event: BenchmarkFinished) -> None:
        if not event.reports:
            return
        assert self._tracker is not None
        run = self._tracker.open("report", self._group, {}, {"folder": str(event.folder)})
        with tempfile.TemporaryDirectory() as made:
            text = report_text(event.reports)
            files = [Path(made, "report.json"), Path(made, "report.md")]
            files[0].write_text(json.dumps(list(event.reports), indent=1), encoding="utf-8")
            files[1].write_text(text, encoding="utf-8")
            run.report(COLUMNS, table(event.reports), text, files)
            run.close(event.status, {})  # some send files no earlier


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep what the calling thread prints off stdout, where results of other threads go."""
    with contextlib.redirect_stdout(_Others(sys.stdout, threading.get_ident())):
        yield


class _Others:
    """A text stream for all threads but one."""

    def __init__(self, stream: Any, muted: int) -> None:
        self._stream, self._muted = stream, muted

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._muted else int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
