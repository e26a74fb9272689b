"""``moco cache``: looking makes nothing, models have names, a call is shown by its key."""

import asyncio
import json
import os

import attrs

from moco_core.runs.records import read_records
from moco_core.runtime.cache import Cache
from moco_toolkit_authoring import ScriptedPool, open_state

RUN = ("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--test", "3", "--dev", "2")


def test_looking_into_a_cache_that_is_not_there_makes_none(moco):
    path = moco.folder / "new.sqlite"
    assert moco("cache", "info", "--cache", str(path)).out == f"{path}: 0 calls, 0.0 MiB\n"
    for command in (("show", "ab"), ("clear", "--yes"), ("prune", "--keep", "1G")):
        got = moco("cache", *command, "--cache", str(path))
        assert got.code == 2 and got.errors == [f"error: no call cache at {path}; --cache PATH names another"]
    assert not path.exists()


def test_models_are_called_as_the_runs_call_them(moco):
    moco(*RUN)
    lines = moco("cache", "info").out.splitlines()
    assert {line.split()[0]: line.split()[-1] for line in lines[1:]} == {
        "toy-3": "toy0",
        "toy-5": "toy1",
        "toy-7": "toy2",
    }
    names = json.loads(moco("cache", "info", "--json").out)["names"]
    assert names == {"toy-3": ["toy0"], "toy-5": ["toy1"], "toy-7": ["toy2"]}
    assert json.loads(moco("cache", "info", "--json", "--out", "elsewhere").out)["names"] == {}


def test_a_call_is_shown_by_the_key_that_a_record_states(moco):
    moco(*RUN)
    folder = next((moco.folder / "runs").glob("*toy_vote*"))
    call = next(read_records(folder))["calls"][0]
    body = json.loads(moco("cache", "show", call["key"]).out)
    assert (body["model"], body["kind"], body["result"]["text"]) == ("toy-3", "generate", call["said"]["text"])
    assert "no call " + "0" * 40 in moco("cache", "show", "0" * 40).err
    assert "expected the key of a call" in moco("cache", "show", "nonsense").err


def test_artifacts_are_shown_pruned_and_cleared_with_the_calls_they_lie_beside(moco):
    moco(*RUN)
    path = moco.folder / "cache.sqlite"
    moco(*RUN, "--cache", str(path))
    assert " artifacts, " not in moco("cache", "info", "--cache", str(path)).out
    for name, day in (("old", 1), ("new", 2)):
        folder = moco.folder / "cache.artifacts" / name
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"0" * 2**20)
        (folder / "artifact.json").write_text(json.dumps({"what": {"kind": "training"}}))
        os.utime(folder / "artifact.json", (day * 86400, day * 86400))
    *_, heading, kind = moco("cache", "info", "--cache", str(path)).out.splitlines()
    assert heading == f"{folder.parent}: 2 artifacts, 2.0 MiB" and kind == "  training  2"
    body = json.loads(moco("cache", "info", "--json", "--cache", str(path)).out)
    assert [a["folder"] for a in body["artifacts"]] == [str(folder), str(folder.with_name("old"))]
    assert moco("cache", "prune", "--keep", "1.5M", "--cache", str(path)).out == "0 calls deleted\n1 artifacts deleted\n"
    assert [f.name for f in folder.parent.iterdir()] == ["new"]
    assert moco("cache", "clear", "--yes", "--cache", str(path)).out.endswith("1 artifacts deleted\n")


def test_replies_of_an_earlier_version_are_told_and_pruned(moco):
    def run(version):
        async def work():
            cache = Cache(moco.folder / "cache" / "calls.sqlite")
            async with open_state(cache=cache) as state:
                context = state.context("respond")
                await context.once({"kind": "co-writing", "version": version}, compute)
                model = attrs.evolve(
                    ScriptedPool({"a": "hm"}).models()[0], fingerprint=f"f{version}", recipe=Fused(version)
                )
                await context.generate(model, "a?")
            cache.close()

        asyncio.run(work())

    (moco.folder / "cache").mkdir()
    run(1)
    assert "no longer read" not in moco("cache", "info").out
    run(2)
    lines = moco("cache", "info").out.splitlines()
    assert lines[-2:] == [
        "  no longer read, since a later version is in use: 1 of co-writing 1, 1 of fusion 1",
        "  moco cache prune --outdated deletes them",
    ]
    assert json.loads(moco("cache", "info", "--json").out)["outdated"] == {"co-writing 1": 1, "fusion 1": 1}
    assert moco("cache", "prune", "--outdated").out == "2 calls deleted\n"
    assert len(moco("cache", "info").out.splitlines()) == len(lines) - 3


async def compute():
    return 1


class Fused:
    kind = "serving"

    def __init__(self, version):
        self.fingerprint, self.made_by = f"f{version}", ("fusion", version)
