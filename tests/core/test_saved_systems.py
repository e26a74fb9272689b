"""What a run folder keeps of a system, and what it must not keep of a pool."""

import asyncio
import json
from pathlib import Path

import moco_core
from moco_core import api
from moco_core.catalogue import Catalogue
from moco_core.hookspecs import hookimpl
from moco_core.runs.observe import Observers

TRIGGERS = """
import attrs
from moco_core import Method, Reply, System, option


@attrs.frozen(kw_only=True)
class Options:
    stop_token: str = option("###", help="ends a thought")


@attrs.define(eq=False, slots=False)
class Triggered(System):
    trigger_tokens: list
    key: str
    secrets: dict

    async def respond(self, question, context):
        return Reply.of(await context.generate(self.pool[0], question))


class Triggers(Method):
    "Learns words whose names look like secrets."

    Options = Options
    system = Triggered

    async def fit(self, pool, dev, context):
        return Triggered(pool, self.options, ["wait", "hmm"], "alpha", {"password": "sesame"})
"""


async def restored(run):
    async with api.open(run) as opened:
        return opened.system


def test_a_saved_system_is_what_fitting_made_of_it_whatever_its_parts_are_called(moco):
    (moco.folder / "triggers.py").write_text(TRIGGERS)
    ran = moco("run", "triggers", "-d", "toys", "-p", "toy_pool", "--no-baselines", "--plugin", "triggers.py",
               "-o", "method.stop_token=@@@")  # fmt: skip
    assert ran.code == 0, ran.err
    (run,) = (moco.folder / "runs").iterdir()
    system = asyncio.run(restored(run))
    assert system.options.stop_token == "@@@"
    assert (system.trigger_tokens, system.key, system.secrets) == (["wait", "hmm"], "alpha", {"password": "sesame"})
    head = json.loads((run / "run.json").read_text())
    assert head["config"]["method"]["stop_token"] == head["given"]["method"]["stop_token"] == "@@@"


def test_a_state_whose_keys_would_come_back_as_text_is_refused_with_the_key(moco):
    code = TRIGGERS.replace('{"password": "sesame"}', "{7: 0.5}")
    (moco.folder / "triggers.py").write_text(code)
    ran = moco("run", "triggers", "-d", "toys", "-p", "toy_pool", "--no-baselines", "--plugin", "triggers.py")
    assert ran.code == 2  # no model was asked
    assert "a system's state has the key 7; the keys of JSON are texts, so store pairs instead" in ran.err


def test_the_key_of_a_pool_reaches_neither_observers_nor_the_trace_nor_the_disk(moco, capsys):
    seen = []

    class Spy:
        @hookimpl
        def moco_run_started(self, event):
            seen.append(event)

        @hookimpl
        def moco_run_finished(self, event):
            seen.append(event)

    moco("list")  # registers the toys
    key = "sk-not-for-everybody"
    observers = Observers(Catalogue({"MOCO_TRACE": "1"}, []).manager(), [Spy()])
    pool = {"name": "toy_pool", "api_key": key}
    moco_core.run(pool=pool, method="toy_vote", dataset="toys", test=3, observers=observers)
    assert len(seen) == 8 and key not in repr(seen)
    assert seen[0].config["pool"]["api_key"] == "***"
    captured = capsys.readouterr()
    assert "moco_run_started [hook]" in captured.err and "event: RunStarted" in captured.err
    assert key not in captured.out + captured.err
    assert not [p for p in Path(moco.folder).rglob("*") if p.is_file() and key.encode() in p.read_bytes()]


def test_a_run_that_is_done_again_writes_the_files_of_its_system_anew(moco):
    """Files that another fit left there neither stop a run nor become part of the system."""
    keeps = """
    def save_files(self, folder):
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("w")

    async def respond"""
    (moco.folder / "triggers.py").write_text(TRIGGERS.replace("\n    async def respond", keeps, 1))
    command = ("run", "triggers", "-d", "toys", "-p", "toy_pool", "--no-baselines", "--plugin", "triggers.py")
    assert moco(*command).code == 0
    (run,) = (moco.folder / "runs").iterdir()
    (run / "system" / "files" / "model" / "older").write_text("x")
    (run / "records.jsonl").unlink()  # so that it is done again
    again = moco(*command)
    assert again.code == 0, again.err
    assert sorted(p.name for p in (run / "system" / "files").rglob("*")) == ["model", "weights"]
