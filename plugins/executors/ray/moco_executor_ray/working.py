"""One run on a node: its events go to the grid's observers, its calls through the grid's cache."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from moco_core import JobConfig, hookimpl, run_job
from moco_core.errors import ConfigError, MocoError, RunFailed
from moco_core.events import QuestionAnswered, RunFinished, RunNoted, RunProgress, RunStarted
from moco_core.runs.observe import Observers
from moco_executor_ray.keeper import KeptCache, Told

__all__ = ["Teller", "Where", "work"]

_BEAT = 0.3  # seconds between two words of a run


@attrs.frozen(kw_only=True)
class Where:
    """The run's machine as a node sees it: ``folder`` is where relative paths start, ``probe`` a file in the folder of runs."""

    folder: str
    probe: str


class Teller:
    """Sends what observers are told, every moment, and interrupts the run once the grid is to stop."""

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._latest: dict[tuple[str, str], RunProgress] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="moco-teller", daemon=True)
        self._thread.start()

    def _add(self, hook: str, event: Any) -> None:
        with self._lock:
            self._told += [("moco_run_progress", e) for e in self._latest.values()]
            self._latest.clear()
            self._told.append((hook, event))

    @hookimpl
    def moco_run_started(self, event: RunStarted) -> None:
        self._add("moco_run_started", event)

    @hookimpl
    def moco_run_progress(self, event: RunProgress) -> None:
        with self._lock:  # of a moment's steps the last one counts
            self._latest[event.run_id, event.phase] = event

    @hookimpl
    def moco_run_noted(self, event: RunNoted) -> None:
        self._add("moco_run_noted", event)

    @hookimpl
    def moco_question_answered(self, event: QuestionAnswered) -> None:
        self._add("moco_question_answered", event)

    @hookimpl
    def moco_run_finished(self, event: RunFinished) -> None:
        self._add("moco_run_finished", event)

    def _send(self) -> bool:
        with self._lock:
            events = [*self._told, *(("moco_run_progress", e) for e in self._latest.values())]
            self._told, self._latest = [], {}
        return bool(self._keeper.tell.remote(events).future().result())

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            try:
                stop = self._send()
            except Exception:  # nobody listens any more
                stop = True
            if stop:
                # a real signal: it wakes the run's event loop wherever it waits
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def close(self) -> None:
        """Say the last words."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            self._send()


def work(job: JobConfig, keeper: Any, where: Where) -> Any:
    """Do one run and return what it came to, or the error that ends the grid; None if it was interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if os.path.isdir(where.folder):
            os.chdir(where.folder)
        if not os.path.exists(where.probe):
            raise ConfigError(
                f"executor: the folder of the runs ({Path(where.probe).parent}) is not seen from {os.uname().nodename}; choose "
                "one on a file system that all nodes share (--out, --cache)"
            )
        # a process does many runs, and knows a file after the first
        fresh = tuple(p for p in job.plugins if f"moco_local_{p.stem}" not in sys.modules)
        teller = Teller(keeper)
        observers = Observers(objects=[teller], report=lambda line: None)
        try:
            return run_job(attrs.evolve(job, plugins=fresh), cache=KeptCache(job.cache, keeper), observers=observers)
        finally:
            teller.close()
    except KeyboardInterrupt:
        return None
    except MocoError as error:
        return error
    except Exception as error:
        return RunFailed(f"{job.label}: {type(error).__name__}: {error}")


def described(job: JobConfig) -> str:
    """Return how a run is called in messages."""
    dataset: Mapping[str, Any] = job.config["dataset"]
    return f"{job.label} on {dataset.get('label') or dataset['name']}, seed {job.config['seed']}"
