"""{{summary}}

Implement any of the event hooks of ``moco_core.hookspecs``; each gets one frozen event. An observer is made for each
benchmark that names it, and is told what happens in the order it happens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from moco_core import hookimpl, option
from moco_core.events import Observer, QuestionAnswered, RunFinished, RunStarted

__all__ = ["Options", "{{Class}}", "moco_observer"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of {{name}}."""

    path: str = option("{{name}}.jsonl", help="the file that gets a line per event")
    questions: bool = option(False, help="a line for every question too, not only for runs")


class {{Class}}(Observer[Options]):
    """{{summary}}"""

    Options = Options

    def _write(self, event: str, **facts: Any) -> None:
        with Path(self.options.path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **facts}) + "\n")

    @hookimpl
    def moco_run_started(self, event: RunStarted) -> None:
        self._write("started", run=event.run_id)

    @hookimpl
    def moco_question_answered(self, event: QuestionAnswered) -> None:
        if self.options.questions:
            self._write("answered", run=event.run_id, question=event.question_id, score=event.score)

    @hookimpl
    def moco_run_finished(self, event: RunFinished) -> None:
        self._write("finished", run=event.run_id, status=event.status, score=event.summary["score"])


@hookimpl
def moco_observer() -> type[{{Class}}]:
    return {{Class}}
