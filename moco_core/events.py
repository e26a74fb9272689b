"""Observers, and what they are told: one frozen event per hook. Events may grow fields; they never lose any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import attrs

from moco_core.options import NoOptions

OptionsT = TypeVar("OptionsT")
Status = Literal["finished", "failed", "interrupted"]
"""How a run or a grid ended."""


class Observer(Generic[OptionsT]):
    """What an observer plugin provides: it watches the runs that name it (``observers: [NAME]``, ``--observer NAME``).

    One is made for each benchmark. It implements any of the event hooks of :mod:`moco_core.hookspecs`, marked with
    ``hookimpl``; it is called in the run's event loop and should return at once, but for the end of a grid, where it may wait
    for what it handed on. What it raises is reported once, and it is told nothing more. Keys of pools are masked in all that
    it is told.
    """

    Options: ClassVar[type] = NoOptions

    def __init__(self, options: OptionsT) -> None:
        self.options = options


@attrs.frozen(kw_only=True)
class BenchmarkStarted:
    """A grid of ``runs`` runs over ``models`` models begins; its folders will lie in ``folder``. One run is a grid, too."""

    runs: int
    folder: Path
    models: int = 0


@attrs.frozen(kw_only=True)
class BenchmarkFinished:
    """A grid ended. ``reports`` are its comparisons as JSON data, one per dataset, of the runs that were done."""

    folder: Path
    status: Status
    reports: Sequence[Mapping[str, Any]]


@attrs.frozen(kw_only=True)
class RunStarted:
    """A run begins. ``config`` is the effective configuration as JSON data, ``label`` the system's name in tables."""

    run_id: str
    folder: Path
    config: Mapping[str, Any]
    label: str = ""


@attrs.frozen(kw_only=True)
class RunProgress:
    """A phase moved on. ``total`` is None while it is unknown; ``note`` is a short text such as "best 0.81"."""

    run_id: str
    phase: str
    done: int
    total: int | None = None
    note: str = ""


@attrs.frozen(kw_only=True)
class RunNoted:
    """A line of JSON data was added to the fit log: a step of a search, a chosen threshold."""

    run_id: str
    phase: str
    data: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class QuestionAnswered:
    """One test question was answered and scored (``error`` empty), or failed (``score`` None).

    ``index`` is its place in the dataset, ``question`` the text that was asked, ``reply`` the system's, and ``answer`` what
    was read out of it.
    """

    run_id: str
    question_id: str
    score: float | None
    status: str
    error: str = ""
    index: int = 0
    question: str = ""
    reply: str = ""
    answer: str = ""


@attrs.frozen(kw_only=True)
class RunFinished:
    """A run ended. ``summary`` is what ``run.json`` holds about its score and its cost."""

    run_id: str
    folder: Path
    status: Status
    summary: Mapping[str, Any]
