import pluggy
import pytest

from moco_core import hookspecs
from moco_core.events import QuestionAnswered, RunProgress
from moco_core.hookspecs import hookimpl
from moco_core.runs.observe import Observers

EVENT = QuestionAnswered(run_id="r", question_id="q", score=1.0, status="parsed")


class Good:
    def __init__(self):
        self.seen = []

    @hookimpl
    def moco_question_answered(self, event):
        self.seen.append(event)


class Silent:
    @hookimpl
    def moco_question_answered(self):
        """An implementation takes only the arguments it wants."""


class Bad:
    @hookimpl
    def moco_question_answered(self, event):
        raise ValueError("oops")


def test_a_failing_observer_is_reported_once_and_disturbs_nobody():
    lines, good = [], Good()
    observers = Observers(None, [Bad(), good, Silent()], report=lines.append)
    for _ in range(3):
        observers.tell("moco_question_answered", EVENT)
    assert good.seen == [EVENT] * 3
    assert len(lines) == 1 and "is switched off: moco_question_answered: ValueError: oops" in lines[0]


def test_events_nobody_listens_to_are_fine():
    Observers().tell("moco_run_progress", RunProgress(run_id="r", phase="dev", done=1))


def test_misspelt_hooks_are_caught():
    manager = pluggy.PluginManager("moco")
    manager.add_hookspecs(hookspecs)

    class Wrong:
        @hookimpl
        def moco_run_start(self, event):
            pass

    manager.register(Wrong())
    with pytest.raises(pluggy.PluginValidationError):
        manager.check_pending()
