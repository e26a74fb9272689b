"""Checks of observers: what they are told harms neither them nor the run."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import attrs

from moco_core import events, hookspecs
from moco_toolkit_authoring.suite import Case, Check, check, require
from moco_toolkit_authoring.traces import empty_folder

__all__ = ["CHECKS", "ObserverCase", "ObserverPlan"]

_SLOW = 1.0
"""Seconds that an observer may take for one event: it is called in the run's event loop."""
_END = "moco_benchmark_finished"
"""The event that an observer may wait at, for what it handed on: by then nothing else runs."""


@attrs.frozen(kw_only=True)
class ObserverPlan:
    """What the checks of observers work with: nothing beyond the plugin and its settings."""


class ObserverCase(Case):
    """One observer with one setting."""


def _events(folder: Path) -> list[tuple[str, Any]]:
    """Return the events of a benchmark of one run, in order, with the hooks they are told by."""
    run: dict[str, Any] = {"run_id": "skills-debate-s0-1a2b3c4d"}
    config = {"pool": {"name": "openai", "api_key": "***"}, "method": {"name": "debate"}, "seed": 0}
    summary = {"score": {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 2}, "tokens": {}, "error": ""}
    made = {
        "moco_benchmark_started": {"runs": 1, "folder": folder},
        "moco_run_started": {**run, "folder": folder, "config": config, "label": "debate"},
        "moco_run_progress": {**run, "phase": "fit", "done": 1, "total": None, "note": "best 0.5"},
        "moco_run_noted": {**run, "phase": "fit", "data": {"step": 1, "score": None}},
        "moco_question_answered": {**run, "question_id": "q0", "score": 1.0, "status": "parsed", "error": ""},
        "moco_run_finished": {**run, "folder": folder, "status": "finished", "summary": summary},
        "moco_benchmark_finished": {"folder": folder, "status": "finished", "reports": [{"rows": []}]},
    }
    failed = {**run, "question_id": "q1", "score": None, "status": "failed", "error": "m: no answer"}
    out = [(hook, _event(hook, facts)) for hook, facts in made.items()]
    out.insert(5, ("moco_question_answered", _event("moco_question_answered", failed)))
    return out


def _event(hook: str, facts: dict[str, Any]) -> Any:
    cls = getattr(events, "".join(word.capitalize() for word in hook.removeprefix("moco_").split("_")))
    known = {field.name: field for field in attrs.fields(cls)}
    spare = {n: "" for n, f in known.items() if n not in facts and f.default is attrs.NOTHING}
    return cls(**{n: v for n, v in facts.items() if n in known}, **spare)


def _hooks(observer: Any) -> list[str]:
    return [name for name in dir(hookspecs) if name.startswith("moco_") and callable(getattr(observer, name, None))]


@check()
def it_watches_something(case: ObserverCase) -> None:
    """It implements at least one event hook, each marked with hookimpl; no method looks like a hook that there is not."""
    with empty_folder():
        observer = case.make()
    hooks = _hooks(observer)
    require(hooks, f"{case.cls.__name__} implements none of the event hooks of moco_core.hookspecs")
    for name in (n for n in dir(observer) if n.startswith("moco_")):
        require(name in hooks, f"{case.cls.__name__}.{name} is no hook; see moco_core.hookspecs")
        marked = getattr(getattr(observer, name), "moco_impl", None)
        require(marked is not None, f"{case.cls.__name__}.{name} is never called: mark it with @hookimpl")


@check(after=["it_watches_something"])
def every_event_is_survived(case: ObserverCase) -> None:
    """A whole benchmark, failed questions and unknown scores included, raises nothing and is told quickly; its end may wait."""
    with empty_folder() as folder:
        observer = case.make()
        for hook, event in _events(folder):
            if hook not in _hooks(observer):
                continue
            started = time.monotonic()
            getattr(observer, hook)(event=event)
            took = time.monotonic() - started
            quick = took < _SLOW or hook == _END
            require(quick, f"{hook} took {took:.1f} s; it is called in the run's event loop: hand slow work on")


@check(after=["every_event_is_survived"])
def events_are_left_as_they_are(case: ObserverCase) -> None:
    """Events are left as they are, so that every observer is told the same."""
    with empty_folder() as folder:
        observer = case.make()
        for hook, event in _events(folder):
            if hook in _hooks(observer):
                before = copy.deepcopy(event)
                getattr(observer, hook)(event=event)
                require(event == before, f"{hook} changes the event it is given")


@check(after=["every_event_is_survived"])
def two_benchmarks_do_not_meet(case: ObserverCase) -> None:
    """Two observers of one process, told alternately, raise nothing: state belongs to the instance."""
    with empty_folder() as folder:
        observers = [case.make(), case.make()]
        for hook, event in _events(folder):
            for observer in observers:
                if hook in _hooks(observer):
                    getattr(observer, hook)(event=event)


CHECKS: tuple[Check, ...] = (
    it_watches_something,
    every_event_is_survived,
    events_are_left_as_they_are,
    two_benchmarks_do_not_meet,
)
