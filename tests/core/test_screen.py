"""What people see: foreign text steers no terminal, and colours say what the printed numbers say."""

import importlib
import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from moco_core import cli
from moco_core.cli.display import LiveProgress, _style, plain_table
from moco_core.cli.screen import printable, say
from moco_core.events import BenchmarkStarted, RunFinished, RunProgress, RunStarted
from moco_core.runs.report import Row
from moco_core.runs.stats import compare
from moco_core.types import Unit

STEERING = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eabc\u2066\u200f\x7f\x08\r\ud800"


def test_text_of_models_keeps_its_letters_and_loses_its_power():
    kept = "tab\there, naïve 漢字 👩\u200d🔬 line\nfeed\r\nand [/bold] [red]markup[/red]"
    assert printable(kept) == kept.replace("\r", "")
    shown = printable(STEERING)
    assert shown.isprintable() and shown.startswith("\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202eabc")
    assert json.loads(f'"{shown}"') == STEERING


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("command", "words"), [("run", "starting\r"), ("plan", "starting\r"), ("list", "")])
def test_on_a_terminal_a_word_comes_before_anything_that_takes_time(monkeypatch, command, words):
    screen, seen = Terminal(), []
    loaded = importlib.import_module

    def spy(name, *args):
        seen.append(screen.getvalue())
        return loaded(name, *args)

    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(importlib, "import_module", spy)
    cli._run([command, "--help"])
    assert seen[0] == screen.getvalue() == words


def test_ask_says_on_a_terminal_what_takes_so_long_and_takes_it_away_again(moco, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr("moco_core.cli.asking.status_console", lambda: console)
    assert moco("ask", "toy_vote", "4 + 4", "-p", "toy_pool", "-o", "metric=toy_match").out == "It is 8\n"
    shown = screen.getvalue()
    assert "opening and asking 3 models" in shown and shown.endswith("\x1b[2K")


def test_lines_and_tables_hold_neither_markup_nor_control(capsys):
    say(Console(force_terminal=True, width=200), f"[bold]{STEERING}[/nonsense]")
    out = capsys.readouterr().out
    assert "\x1b" not in out and out.startswith("[bold]\\u001b]0;owned") and out.rstrip().endswith("[/nonsense]")
    assert "\x1b" not in "".join(plain_table(["\x1b[2J"], [["\x1b[31mred"]]))


def progress(run, phase, done, total, note=""):
    return RunProgress(run_id=run, phase=phase, done=done, total=total, note=note)


def test_a_bar_for_each_run_under_way_one_for_the_grid_and_a_word_until_the_first_moves():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)

    def shown():
        return [(t.description, t.completed, t.total) for t in live._bars.tasks]

    with LiveProgress(console) as live:
        live.moco_benchmark_started(BenchmarkStarted(runs=3, models=2, folder=Path("runs")))
        assert shown() == [("opening 2 models", 0, None), ("runs", 0, 3)]
        for run, label in (("a", "m0"), ("b", "vote")):
            live.moco_run_started(RunStarted(run_id=run, folder=Path(run), config={}, label=label))
        assert len(shown()) == 2
        live.moco_run_progress(progress("a", "dev m0", 1, 4))
        assert shown() == [("runs", 0, 3), ("dev m0", 1, 4)]
        # of two phases at once the first is shown until it is done: nothing jumps
        live.moco_run_progress(progress("a", "test m0", 5, 9))
        live.moco_run_progress(progress("b", "search\x1b[2J", 2, None, "best [0.5]"))
        assert shown() == [("runs", 0, 3), ("dev m0", 1, 4), ("vote: search\\u001b[2J", 2, None)]
        live.moco_run_progress(progress("a", "dev m0", 4, 4))
        live.moco_run_progress(progress("a", "test m0", 6, 9))
        assert shown()[1] == ("test m0", 6, 9)
        summary = {"score": None, "timings": {"total": 1.0}}
        live.moco_run_finished(RunFinished(run_id="a", folder=Path("a"), status="finished", summary=summary))
        assert [s[0] for s in shown()] == ["runs", "vote: search\\u001b[2J"] and shown()[0][1] == 1


POOL = """
from moco_core import Engine, Generation, Model, ModelCallError, PoolSource


class Loud(Engine):
    def serve(self, model, inbox):
        for call in inbox.take():
            if "fail" in call.input["messages"][-1][1]:
                inbox.reject(call, ModelCallError("the server says \\x1b[2J[/gone]"))
            else:
                inbox.resolve([(call, Generation(text="\\x1b]0;owned\\x07 [/b] It is 8"))])


class Hostile(PoolSource):
    "Writes to the terminal."

    def models(self):
        engine = Loud()
        return [Model(name=f"h{i}", fingerprint=f"h{i}", capabilities={"generate"}, engine=engine) for i in range(2)]
"""


def test_asking_shows_control_sequences_as_letters(moco):
    (moco.folder / "hostile.py").write_text(POOL)
    ask = ("ask", "toy_vote", "-p", "hostile", "--plugin", "hostile.py", "-o", "metric=toy_match")
    for extra in ((), ("--messages",), ("--json",)):
        got = moco(*ask, "4 + 4", *extra)
        assert got.code == 0, got.err
        assert "\x1b" not in got.out and "\x07" not in got.out and "]0;owned" in got.out and "[/b] It is 8" in got.out
    assert json.loads(moco(*ask, "4 + 4", "--json").out)["text"] == "\x1b]0;owned\x07 [/b] It is 8"
    got = moco(*ask, "fail")
    assert got.code == 1 and "\x1b" not in got.err and "the server says \\u001b[2J[/gone]" in got.err
    got = moco("run", "toy_vote", "-d", "toys", "-p", "hostile", "--plugin", "hostile.py", "--test", "2")
    assert "\x1b" not in got.err + got.out


@pytest.mark.parametrize(
    ("question", "more"), [("4 + \udcff4", ()), ("4 + 4", ("--choice", "8", "--choice", "\udcff"))]
)
def test_what_is_no_text_is_refused(moco, question, more):
    got = moco("ask", "toy_vote", question, "-p", "toy_pool", *more)
    assert got.code == 2 and got.errors[0].endswith("is not text in UTF-8") and len(got.errors) == 1


@pytest.mark.parametrize(
    ("wins", "losses", "p", "colour"),
    [(4, 0, 0.125, ""), (5, 0, 0.0625, ""), (6, 0, 0.03125, "green"), (0, 6, 0.03125, "red"), (9, 5, 0.424, "")],
)
def test_a_row_is_coloured_where_the_printed_p_says_so(wins, losses, p, colour):
    n = 100  # the bootstrap interval excludes 0 from 4:0 on, however many questions agree
    system = [Unit(str(i), float(i < wins or i >= wins + losses)) for i in range(n)]
    single = [Unit(str(i), float(i >= wins)) for i in range(n)]
    versus = compare(system, single)
    assert versus.p_value == pytest.approx(p, abs=1e-3)
    row = Row(label="m", role="method", best=False, estimate=None, versus=versus, runs=())
    assert _style(row) == colour
