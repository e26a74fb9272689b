"""Artifacts are built once ever, appear whole or not at all, and go by age and size."""

import asyncio
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from moco_core.cli.keeping import artifacts_below, prune_artifacts
from moco_core.errors import StoreError
from moco_core.runtime.artifacts import Artifacts
from moco_core.runtime.runtime import Runtime

SPAWN = multiprocessing.get_context("spawn")
WHAT = {"kind": "head", "model": "f", "seed": 0}


def get(root, what=WHAT, build=None, times=1, resume=False):
    """Ask ``times`` at once; return the folders and how often it was built."""
    built = []

    async def write(folder: Path):
        built.append(sorted(p.name for p in folder.iterdir()))
        await asyncio.sleep(0.01)
        (folder / "w.bin").write_bytes(b"weights")

    async def main():
        store = Artifacts(root)
        return await asyncio.gather(*(store.get(what, build or write, resume=resume) for _ in range(times)))

    return asyncio.run(main()), built


def test_it_is_built_once_and_found_again(tmp_path):
    folders, built = get(tmp_path, times=5)
    assert len(set(folders)) == 1 and built == [[]]
    assert (folders[0] / "w.bin").read_bytes() == b"weights"
    again, built = get(tmp_path)
    assert again[0] == folders[0] and built == []
    other, built = get(tmp_path, {**WHAT, "seed": 1})
    assert other[0] != folders[0] and built == [[]]


def test_a_failed_build_leaves_nothing_that_counts(tmp_path):
    async def half(folder):
        (folder / "w.bin").write_bytes(b"we")
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        get(tmp_path, build=half)
    folders, built = get(tmp_path)
    assert built == [[]] and (folders[0] / "w.bin").read_bytes() == b"weights"


def test_a_builder_that_can_resume_finds_what_was_there(tmp_path):
    async def half(folder):
        (folder / "checkpoint").write_text("step 5")
        raise ValueError

    with pytest.raises(ValueError):
        get(tmp_path, build=half)
    _, built = get(tmp_path, resume=True)
    assert built == [["checkpoint"]]


def _build(root, log, seconds):
    async def build(folder):
        with log.open("a") as file:
            file.write("built\n")
        await asyncio.sleep(seconds)
        (folder / "w.bin").write_bytes(b"weights")

    asyncio.run(Artifacts(root).get(WHAT, build))


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path):
    workers = [SPAWN.Process(target=_build, args=(tmp_path / "a", tmp_path / "log", 0.5)) for _ in range(2)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert [w.exitcode for w in workers] == [0, 0] and (tmp_path / "log").read_text() == "built\n"


def test_a_killed_builder_blocks_nobody(tmp_path):
    worker = SPAWN.Process(target=_build, args=(tmp_path / "a", tmp_path / "log", 600))
    worker.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.02)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    _, built = get(tmp_path / "a")
    assert built == [[]]


def test_the_longest_unused_go_first_and_are_built_again(tmp_path):
    folders = [get(tmp_path, {**WHAT, "seed": s})[0][0] for s in range(4)]
    for age, folder in enumerate(folders):
        os.utime(folder / "artifact.json", (1000 + age, 1000 + age))
    assert [a.folder for a in artifacts_below(tmp_path)] == folders[::-1]
    assert {a.kind for a in artifacts_below(tmp_path)} == {"head"}
    size = artifacts_below(tmp_path)[0].bytes
    get(tmp_path, {**WHAT, "seed": 0})  # used again: now the youngest
    assert prune_artifacts(tmp_path, keep_bytes=2 * size + size // 2) == 2
    assert [f.exists() for f in folders] == [True, False, False, True]
    assert prune_artifacts(tmp_path, older_than=2000) == 1 and folders[0].exists()
    assert get(tmp_path, {**WHAT, "seed": 3})[1] == [[]]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write the artifact .*--cache PATH"):
        get(tmp_path / "file" / "a")


def test_artifacts_lie_beside_the_cache_and_a_cache_in_memory_leaves_none(tmp_path):
    async def build(folder):
        (folder / "x").write_text("x")

    async def main(path):
        async with Runtime(path) as runtime:
            return await runtime.state(None).context("fit").artifact(WHAT, build)

    assert asyncio.run(main(tmp_path / "calls.sqlite")).parent == tmp_path / "calls.artifacts"
    assert not asyncio.run(main(None)).exists()
