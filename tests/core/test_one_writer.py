"""A run folder has one writer: a second one refuses or waits, and a killed one is in nobody's way."""

import os
import signal
import subprocess
import sys
import time

import pytest

from moco_core.errors import StoreError
from moco_core.runs.folder import FolderBusy, RunFolder
from moco_core.runs.records import read_records, read_run
from moco_core.runs.results import RunResult

COMMAND = ("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--no-baselines")


@pytest.fixture
def start(moco, toys):
    """Start a run in a process of its own; a slow one if there is a delay."""
    started = []

    def go(*extra, delay=0.0):
        slow = ["-o", f"pool.delay={delay}", "-o", "pool.batch=2"] if delay else []
        command = [sys.executable, "-m", "moco_core", *COMMAND, "--plugin", str(toys), *slow, *extra]
        bare = {**os.environ, "MOCO_PLUGINS": ""}  # the core prints its own tables, as in this process
        process = subprocess.Popen(
            command, cwd=moco.folder, env=bare, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.communicate()


def running(moco):
    """Wait for a run to be under way, and return its folder."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for head in (moco.folder / "runs").glob("*/run.json"):
            if read_run(head.parent)["status"] == "running":
                return head.parent
        time.sleep(0.02)
    raise AssertionError("nothing is running")


def test_a_second_writer_refuses_or_waits_by_choice(moco, start):
    first = start(delay=0.05)
    folder = running(moco)
    slow = ("-o", "pool.delay=0.05", "-o", "pool.batch=2")
    refused = moco(*COMMAND, *slow)
    assert refused.code == 1 and refused.errors == [
        f"error: runs/{folder.name} is being written by process {first.pid}; wait for its end with --wait, "
        "or choose another place with --out"
    ]
    waited = moco(*COMMAND, *slow, "--wait")
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0 and waited.code == 0, err + waited.err
    assert f"runs/{folder.name} is being written by process {first.pid}; waiting for its end" in waited.err
    assert waited.out == out and "120 model calls, 120 from the cache" in waited.err
    assert len(list(read_records(folder))) == len(RunResult.read(folder).units) == 40


def test_a_killed_writer_is_in_nobodys_way(moco, start):
    killed = start(delay=0.05)
    folder = running(moco)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    head = read_run(folder)
    assert (head["status"], head["error"]) == ("interrupted", "its process was killed")
    result = RunResult.read(folder)
    assert result.status == "interrupted" and result.units == ()
    again = start(delay=0.05)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert RunResult.read(folder).status == "finished" and len(list(read_records(folder))) == 40


HEAD = {"id": "x", "role": "method"}


def end(folder, index, status="finished"):
    folder.record({"index": index})
    folder.close((), status=status)


def test_a_finished_run_is_kept_until_another_is_finished(tmp_path):
    def written(name="records.jsonl"):
        return (tmp_path / name).read_text()

    end(RunFolder(tmp_path, HEAD), 1)
    end(RunFolder(tmp_path, HEAD), 2, "interrupted")
    assert written("previous.records.jsonl") == '{"index": 1}\n' and written() == '{"index": 2}\n'
    end(RunFolder(tmp_path, HEAD), 3, "failed")
    assert written("previous.records.jsonl") == '{"index": 1}\n' and written() == '{"index": 3}\n'
    end(RunFolder(tmp_path, HEAD), 4)
    assert written() == '{"index": 4}\n' and not list(tmp_path.glob("previous.*"))


def test_a_folder_is_free_again_however_its_writer_ended(tmp_path):
    first = RunFolder(tmp_path, HEAD)
    with pytest.raises(FolderBusy, match=f"is being written by process {os.getpid()}"):
        RunFolder(tmp_path, HEAD)
    (tmp_path / "records.jsonl").unlink()
    (tmp_path / "run.json.tmp").mkdir()
    with pytest.raises(StoreError, match="cannot write the run folder"):
        first.close((), status="finished")
    with pytest.raises(StoreError, match="cannot write the run folder"):
        RunFolder(tmp_path, HEAD)
    (tmp_path / "run.json.tmp").rmdir()
    RunFolder(tmp_path, HEAD).close((), status="finished")
    assert read_run(tmp_path)["status"] == "finished"
