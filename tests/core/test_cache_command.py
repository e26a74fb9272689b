"""``moco cache``: looking makes nothing, models have names, a call is shown by its key."""

import json

from moco_core.runs.records import read_records

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
