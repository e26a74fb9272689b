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


WATCHERS = """
import attrs
from moco_core import hookimpl
from moco_core.events import Observer
from moco_core.options import option


@attrs.frozen(kw_only=True)
class Options:
    path: str = option("seen.txt", help="where it writes what it is told")
    fails: str = option("", help="where it fails: made, told")


class Diary(Observer):
    "Writes down what it is told."

    Options = Options

    def __init__(self, options):
        super().__init__(options)
        if options.fails == "made":
            raise RuntimeError("no\\npaper")

    @hookimpl
    def moco_run_finished(self, event):
        if self.options.fails == "told":
            raise RuntimeError("no ink")
        with open(self.options.path, "a") as file:
            file.write(event.status + "\\n")


class Misspelt(Observer):
    "Listens to what nobody says."

    @hookimpl
    def moco_run_start(self, event):
        pass
"""
RUN = ("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--test", "3", "--plugin", "watchers.py")


@pytest.fixture
def watchers(moco):
    (moco.folder / "watchers.py").write_text(WATCHERS)
    return moco.folder


def test_an_observer_watches_only_the_runs_that_name_it(moco, watchers):
    assert moco(*RUN).code == 0 and not (watchers / "seen.txt").exists()
    assert moco("plan", "toy_vote", "-d", "toys", "-p", "toy_pool", "-o", "observer=diary").code == 0
    assert not (watchers / "seen.txt").exists()
    assert moco(*RUN, "--observer", "diary").code == 0
    assert (watchers / "seen.txt").read_text().split() == ["finished"] * 4
    assert moco(*RUN, "--observer", "diary", "-o", "observer.path=other.txt").code == 0
    assert (watchers / "other.txt").read_text().split() == ["finished"] * 4
    (watchers / "run.yaml").write_text(
        "method: toy_vote\ndataset: toys\npool: toy_pool\ntest: 3\nobservers: [{name: diary, path: third.txt}]\n"
    )
    assert moco("run", "run.yaml").code == 0
    assert (watchers / "third.txt").read_text().split() == ["finished"] * 4


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            ("--observer", "diary", "-o", "observer.fails=made"),
            "observer 'diary' is switched off: RuntimeError: no paper",
        ),
        (
            ("--observer", "diary", "-o", "observer.fails=told"),
            "observer 'diary' is switched off: moco_run_finished: RuntimeError: no ink",
        ),
        (("--observer", "misspelt"), "observer 'misspelt' is switched off: PluginValidationError: unknown hook"),
    ],
)
def test_an_observer_that_fails_is_told_of_once_and_the_run_goes_on(moco, watchers, given, line):
    got = moco(*RUN, *given)
    assert got.code == 0 and got.err.count("is switched off") == 1 and line in got.err


def test_observers_are_plugins_like_others(moco, watchers):
    got = moco("list", "observer", "--plugin", "watchers.py")
    assert got.out.startswith("observers (") and "Writes down what it is told." in got.out
    assert "path: str, default seen.txt" in moco("show", "observer", "diary").out
    got = moco(*RUN, "--observer", "dairy")
    assert got.code == 2 and "no observer 'dairy' is installed, did you mean 'diary'?" in got.errors[0]
    got = moco(*RUN, "--observer", "diary", "-o", "observer.paht=x")
    assert got.code == 2 and got.errors == ["error: observer.paht: unknown key, did you mean 'path'?"]
