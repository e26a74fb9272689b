"""A cache that cannot be written is read: a colleague's, or one of an archive."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from moco_core.runtime.artifacts import Artifacts
from moco_core.runtime.cache import Cache, KeyParts, encode_result
from moco_core.runtime.runtime import Runtime

RUN = ("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--dev", "2")


def parts(name):
    return KeyParts(model="m", kind="memo", input=name, params="{}", seed="")


def row(name, value):
    return parts(name).key(), parts(name), encode_result(value), None


def filled(path):
    cache = Cache(path)
    cache.put_many([row("old", {"n": 1})])
    return cache


def opened_to_read(place, **options):
    """Open as SQLite does where the file must not be written: every statement that writes is refused."""
    uri = place if str(place).startswith("file:") or place == ":memory:" else f"{Path(place).absolute().as_uri()}?mode=ro"
    return CONNECT(uri, **{**options, "uri": True})


CONNECT = sqlite3.connect
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def refused(monkeypatch):
    """SQLite refuses to write to any file, as for somebody without the right to: permissions do not bind who is root."""

    def refuse():
        monkeypatch.setattr(sqlite3, "connect", lambda place, timeout=5, **more: opened_to_read(place, timeout=timeout, **more))

    return refuse


def test_what_is_stored_is_read_and_what_is_new_is_kept_until_it_is_closed(tmp_path, refused):
    path = tmp_path / "c.sqlite"
    filled(path).close()
    before = path.read_bytes()
    refused()
    cache = Cache(path)
    old, new = parts("old").key(), parts("new").key()
    assert cache.read_only and cache.get_many([old, new]) == {old: ({"n": 1}, None)}
    assert cache.put_many([row("new", {"n": 2})]) == {}
    assert cache.get_many([old, new]) == {old: ({"n": 1}, None), new: ({"n": 2}, None)}
    assert cache.claim([new], "us", 9) == set() and cache.count == 1
    cache.release([new], "us")
    cache.note_makers({"m": ("made", 1)})
    cache.close()
    again = Cache(path)
    assert again.get_many([old, new]) == {old: ({"n": 1}, None)} and path.read_bytes() == before
    again.close()


def test_a_run_beside_it_goes_on_stores_nothing_there_and_says_so_once(moco, refused):
    path = moco.folder / "theirs.sqlite"
    first = moco(*RUN, "--test", "3", "--cache", str(path), "--out", "one")
    stored, before = Cache(path).count, path.read_bytes()
    refused()
    same = moco(*RUN, "--test", "3", "--cache", str(path), "--out", "two")
    assert same.out == first.out and same.code == 0
    more = moco(*RUN, "--test", "5", "--cache", str(path), "--out", "three")
    told = f"the call cache {path} cannot be written; new calls are kept until moco ends"
    head = json.loads(next((moco.folder / "three").glob("*toy_vote*/run.json")).read_text())
    assert more.code == 0 and head["status"] == "finished" and told in head["warnings"]
    assert " ".join(more.err.split()).count(told) + " ".join(more.out.split()).count(told) == 1
    info = moco("cache", "info", "--cache", str(path))
    assert info.out.startswith(f"{path}: {stored:,} calls, ") and "MiB, cannot be written\n" in info.out
    assert json.loads(moco("cache", "info", "--json", "--cache", str(path)).out)["read_only"] is True
    call = json.loads(next((moco.folder / "one").glob("*toy_vote*/records.jsonl")).read_text().splitlines()[0])["calls"][0]
    assert json.loads(moco("cache", "show", call["key"], "--cache", str(path)).out)["result"]["text"] == call["said"]["text"]
    for command in (("clear", "--yes"), ("prune", "--keep", "1K")):
        got = moco("cache", *command, "--cache", str(path))
        assert (got.code, got.errors) == (2, [f"error: the call cache {path} cannot be written; nothing was deleted"])
    assert path.read_bytes() == before


class Ends:
    """A server that is stopped as soon as it serves."""

    async def serve(self, sockets):
        pass


@pytest.mark.parametrize("command", ["run", "bench", "ask", "serve", "score"])
def test_every_command_that_asks_says_it_once_in_the_same_words(command, moco, refused, monkeypatch):
    path, toys = moco.folder / "theirs.sqlite", ("--plugin", str(Path(__file__).with_name("toy_plugins.py")))
    cache = ("--cache", str(path))
    moco(*RUN, "--test", "3", *cache, "--out", "one")
    (folder,) = (moco.folder / "one").glob("*toy_vote*")
    refused()
    if command == "serve":
        pytest.importorskip("moco_command_serve", reason="the command serve is not installed")
        monkeypatch.setattr("moco_command_serve.server.make_server", lambda *given: Ends())
    if command == "score":
        pytest.importorskip("moco_command_score", reason="the command score is not installed")
    asked = {
        "run": ("toy_vote", "-d", "toys", "-p", "toy_pool", "--dev", "2", "--test", "3", "--out", "two"),
        "bench": ("--method", "toy_vote", "--dataset", "toys", "-p", "toy_pool", "--dev", "2", "--test", "3", "--out", "two"),
        "ask": (str(folder), "4 + 4"),
        "serve": (str(folder), "--port", "0", *toys),
        "score": (str(folder), "-m", "toy_match", "--out", "two", *toys),
    }
    got = moco(command, *asked[command], *cache)
    told = f"warning: the call cache {path} cannot be written; new calls are kept until moco ends"
    assert got.code == 0, got.err
    assert " ".join(got.err.split()).count(told) == 1 and told not in got.out


def test_artifacts_beside_it_are_used_and_new_ones_are_built_elsewhere(tmp_path, refused):
    path = tmp_path / "c.sqlite"
    filled(path).close()

    async def build(folder):
        (folder / "w").write_bytes(b"weights")

    there = asyncio.run(Artifacts(tmp_path / "c.artifacts").get({"kind": "old"}, build))
    refused()

    async def main():
        async with Runtime(path) as runtime:
            store = runtime.artifacts
            old, new = await store.get({"kind": "old"}, build), await store.get({"kind": "new"}, build)
            assert (new / "w").read_bytes() == b"weights" == (await store.get({"kind": "new"}, build) / "w").read_bytes()
            return old, new

    old, new = asyncio.run(main())
    assert old == there and tmp_path not in new.parents and not new.exists()
    assert [p.name for p in (tmp_path / "c.artifacts").iterdir() if p.is_dir()] == [there.name]


# ---------------------------------------------------------------- as somebody who is not root

NOBODY = 65534


def seen(path, sender):
    """Say what a process sees that has no rights to a file but what everybody has."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    cache = Cache(path)
    keys = {name: parts(name).key() for name in ("old", "late")}
    found = cache.get_many(list(keys.values()))
    sender.send([cache.read_only, [name for name, key in keys.items() if key in found]])


def as_somebody_else(path):
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=seen, args=(path, sender))  # forked: others may not be allowed to read this installation
    child.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        child.join()


@pytest.fixture
def theirs():
    """A folder that everybody may enter, and nobody but us may write to."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def locked(folder):
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


def test_a_closed_cache_in_a_folder_of_somebody_elses_is_read(theirs):
    filled(theirs / "c.sqlite").close()
    locked(theirs)
    assert as_somebody_else(theirs / "c.sqlite") == [True, ["old"]]
    assert [p.name for p in theirs.iterdir()] == ["c.sqlite"]


def writing(path, conversation):
    cache = filled(path)
    cache.put_many([row("late", {"n": 3})])
    conversation.send("stored")
    conversation.recv()
    cache.close()


def test_beside_a_writer_what_it_stored_just_now_is_read_too(theirs):
    here, there = FORK.Pipe()
    writer = FORK.Process(target=writing, args=(theirs / "c.sqlite", there), daemon=True)
    writer.start()
    assert here.recv() == "stored"
    locked(theirs)
    assert as_somebody_else(theirs / "c.sqlite") == [True, ["old", "late"]]
    here.send("done")
    writer.join()


def test_a_file_that_may_be_written_in_a_folder_that_may_not_is_read(theirs):
    filled(theirs / "c.sqlite").close()
    (theirs / "c.sqlite").chmod(0o666)
    theirs.chmod(0o555)
    assert as_somebody_else(theirs / "c.sqlite") == [True, ["old"]]
