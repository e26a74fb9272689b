"""Checks of observers: the scaffolded one passes, and each broken one fails exactly its check."""

from __future__ import annotations

import time

import pytest

from moco_core import hookimpl
from moco_core.catalogue import Catalogue
from moco_core.events import Observer
from moco_toolkit_authoring import run_checks
from moco_toolkit_authoring.observer import CHECKS


class Good(Observer):
    """Keeps what it is told."""

    def __init__(self, options):
        super().__init__(options)
        self.told = []

    @hookimpl
    def moco_run_started(self, event):
        self.told.append(event)

    @hookimpl
    def moco_run_finished(self, event):
        self.told.append(event.summary["score"]["mean"])


class Blind(Observer):
    """Watches nothing."""


class Unmarked(Good):
    """Forgets to mark a hook."""

    def moco_run_progress(self, event):
        self.told.append(event)


class Misspelt(Good):
    """Waits for an event that never comes."""

    @hookimpl
    def moco_run_begun(self, event):
        self.told.append(event)


class Trusting(Good):
    """Takes every question for scored."""

    @hookimpl
    def moco_question_answered(self, event):
        self.told.append(event.score + 1)


class Slow(Good):
    """Talks to its service while the run waits."""

    @hookimpl
    def moco_run_noted(self, event):
        time.sleep(1.2)


class Meddling(Good):
    """Cleans up what others have yet to read."""

    @hookimpl
    def moco_run_finished(self, event):
        event.summary.pop("tokens", None)


class Shared(Good):
    """Keeps the run on the class."""

    run = None

    @hookimpl
    def moco_run_started(self, event):
        assert type(self).run is None, "a run is open already"
        type(self).run = event.run_id

    @hookimpl
    def moco_run_finished(self, event):
        type(self).run = None


def failed(cls):
    catalogue = Catalogue({}, entry_points=[])
    catalogue.register(cls, "sample")
    ours = {c.name for c in CHECKS}
    return [r.name for r in run_checks("observer", "sample", catalogue=catalogue) if r.name in ours and not r.ok]


def test_a_good_observer_passes():
    assert failed(Good) == []


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (Blind, "it_watches_something"),
        (Unmarked, "it_watches_something"),
        (Misspelt, "it_watches_something"),
        (Trusting, "every_event_is_survived"),
        (Slow, "every_event_is_survived"),
        (Meddling, "events_are_left_as_they_are"),
        (Shared, "two_benchmarks_do_not_meet"),
    ],
)
def test_a_broken_observer_fails_exactly_its_check(cls, check):
    assert failed(cls) == [check]


def test_the_scaffolded_observer_passes_every_check(install):
    catalogue = install("sample", kind="observer")
    results = run_checks("observer", "sample", settings=[{}, {"questions": True}], catalogue=catalogue)
    assert [r for r in results if not r.ok] == []
