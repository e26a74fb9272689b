"""The whole surface that plugins implement: a registration for each kind, and what observers are told.

A plugin is a module with an entry point in one of the groups below; the entry point's name is the plugin's public name::

    [project.entry-points."moco.method"]
    shortest = "moco_method_shortest"

and in the module::

    from moco_core import hookimpl

    @hookimpl
    def moco_method():
        return Shortest

Registration hooks are called on the selected plugin only, never broadcast. The observers that a run names implement any of
the event hooks below; each gets one frozen event, which may grow fields but never lose any. An observer that raises is
reported once and told nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from moco_core import events
    from moco_core.data import Dataset, Metric
    from moco_core.executors import Executor
    from moco_core.methods import Method
    from moco_core.models import PoolSource

hookspec = pluggy.HookspecMarker("moco")
hookimpl = pluggy.HookimplMarker("moco")


@hookspec
def moco_pool() -> type[PoolSource[Any]]:  # type: ignore[empty-body]
    """Return the pool source class."""


@hookspec
def moco_method() -> type[Method[Any]]:  # type: ignore[empty-body]
    """Return the method class."""


@hookspec
def moco_dataset() -> type[Dataset[Any]]:  # type: ignore[empty-body]
    """Return the dataset class."""


@hookspec
def moco_metric() -> type[Metric[Any]]:  # type: ignore[empty-body]
    """Return the metric class."""


@hookspec
def moco_observer() -> type[events.Observer[Any]]:  # type: ignore[empty-body]
    """Return the observer class."""


@hookspec
def moco_executor() -> type[Executor[Any]]:  # type: ignore[empty-body]
    """Return the executor class."""


@hookspec
def moco_benchmark_started(event: events.BenchmarkStarted) -> None:
    """A grid of runs begins; nothing has been asked yet."""


@hookspec
def moco_run_started(event: events.RunStarted) -> None:
    """A run begins; nothing has been asked yet."""


@hookspec
def moco_run_progress(event: events.RunProgress) -> None:
    """A phase moved on: questions done, calls made, tokens, best score of a search so far."""


@hookspec
def moco_run_noted(event: events.RunNoted) -> None:
    """A line was added to a run's fit log."""


@hookspec
def moco_question_answered(event: events.QuestionAnswered) -> None:
    """One test question was answered and scored, or failed. Fires once per question, in order of completion."""


@hookspec
def moco_run_finished(event: events.RunFinished) -> None:
    """A run ended: finished, failed or interrupted. Its folder is complete."""


@hookspec
def moco_benchmark_finished(event: events.BenchmarkFinished) -> None:
    """A grid ended: finished, failed or interrupted. Fires once, after the last run's end."""
