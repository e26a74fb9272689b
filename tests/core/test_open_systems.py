"""A loaded system keeps its engines open; questions asked together are batched; a loop that runs already is no obstacle."""

import asyncio
import json
import subprocess
import sys
from typing import ClassVar

import pytest

from moco_core import api
from moco_core.catalogue import Catalogue
from moco_core.errors import StoreError
from moco_core.models import Engine, Model, PoolSource
from moco_core.types import Generation

from . import toy_plugins


class Weighty(Engine):
    """Counts how often it is opened, and the calls of every batch."""

    opened = closed = 0
    batches: ClassVar[list[int]] = []

    async def start(self, runtime):
        type(self).opened += 1

    async def close(self):
        type(self).closed += 1

    def serve(self, model, inbox):
        while calls := inbox.take():
            self.batches.append(len(calls))
            inbox.resolve([(c, Generation(text=f"It is {len(c.input['messages'][-1][1])}")) for c in calls])


class WeightyPool(PoolSource):
    """Two models that say how long their prompt is."""

    def models(self):
        engine = Weighty()
        return [Model(name=n, fingerprint=n, capabilities={"generate"}, engine=engine) for n in "ab"]


@pytest.fixture
def saved(tmp_path):
    """A run folder with a saved system, and how to load it."""
    known = Catalogue({}, entry_points=[])
    known.register(WeightyPool, "weighty")
    known.register(toy_plugins.ToyVote, "toy_vote")
    known.register(toy_plugins.ToyMatch, "toy_match")
    body = {
        "format": 1,
        "pool": {"name": "weighty"},
        "method": {"name": "toy_vote"},
        "metric": {"name": "toy_match"},
        "sampling": {"temperature": 0.0},
        "seed": 0,
        "state": {},
    }
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "system.json").write_text(json.dumps(body))
    Weighty.opened = Weighty.closed = 0
    Weighty.batches.clear()
    return lambda how: how(tmp_path, plugins=known, cache=tmp_path / "calls.sqlite")


def test_five_questions_open_the_engines_once(saved):
    with saved(api.load) as system:
        texts = [system.ask("x" * n).text for n in range(1, 6)]
        assert texts == [f"It is {n}" for n in range(1, 6)]
        assert (Weighty.opened, Weighty.closed) == (1, 0)
    assert Weighty.closed == 1
    assert system.ask("x" * 9).text == "It is 9" and Weighty.opened == 2  # it opens again when it is needed
    system.close()
    assert Weighty.closed == 2


def test_questions_asked_at_once_share_a_batch(saved):
    async def main():
        async with saved(api.open) as system:
            asked = await asyncio.gather(*(system.ask("x" * n) for n in range(1, 9)))
            return [a.text for a in asked]

    assert asyncio.run(main()) == [f"It is {n}" for n in range(1, 9)] and Weighty.batches == [8, 8]


def test_a_running_loop_is_no_obstacle(saved):
    async def notebook():
        with saved(api.load) as system:
            return system.ask("xyz").text

    assert asyncio.run(notebook()) == "It is 3"


SCRIPT = """
import json, sys, threading, time
from pathlib import Path
import moco_core as moco
from moco_core import PoolSource
from moco_core.catalogue import installed
from moco_toolkit_authoring import ScriptedPool

begun = threading.Event()


def reply(call):
    if "slow" in call.prompt:
        begun.set()
        time.sleep(0.3)
    return "It is 3"


class Scripted(PoolSource):
    def models(self):
        return ScriptedPool({"a": reply, "b": reply}).models()


moco.register(Scripted, "scripted")
installed().register_file(Path(sys.argv[1]))
file = Path("system/system.json")
file.write_text(json.dumps({**json.loads(file.read_text()), "pool": {"name": "scripted"}}))
system = moco.load(".", cache=Path("calls.sqlite"))
print(system.ask("1 + 2").text)
"""


def script_that_never_closes(toys, folder, more=""):
    """Run the script, with what it does last, in a new process."""
    command = [sys.executable, "-c", SCRIPT + more, str(toys)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_script_that_closes_nothing_ends_without_a_word(saved, toys, tmp_path):
    done = script_that_never_closes(toys, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "It is 3\n", "")


def test_a_script_may_end_while_an_engine_is_at_work(saved, toys, tmp_path):
    more = "threading.Thread(target=system.ask, args=('slow',), daemon=True).start()\nbegun.wait()"
    done = script_that_never_closes(toys, tmp_path, more)
    assert (done.returncode, done.stdout) == (0, "It is 3\n") and "pending" not in done.stderr


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda body: [], "damaged, expected a mapping; run it again"),
        (lambda body: {**body, "format": 99}, "format 99, this version reads 1"),
        (lambda body: {**body, "state": None}, "'state' is missing or damaged"),
        (lambda body: {k: v for k, v in body.items() if k != "pool"}, "'pool' is missing or damaged"),
    ],
)
def test_a_damaged_system_is_one_line(saved, tmp_path, damage, words):
    file = tmp_path / "system" / "system.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    with pytest.raises(StoreError, match=words):
        saved(api.load)
