"""A grid on a cluster comes to what it comes to here, whatever happens to the machines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from grid_helpers import calls, runs, stored, until

from moco_core.runs.records import read_records


def content(folder: Path) -> Any:
    """What a run came to but for its times and for which of several runs made a call first."""
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in read_records(folder)]
    for record in records:
        record["calls"] = [{k: v for k, v in c.items() if k not in ("cached", "seconds")} for c in record["calls"]]
    return records, (folder / "units.jsonl").read_text(), (folder / "system" / "system.json").read_text()


def test_a_grid_on_a_cluster_comes_to_the_same_and_asks_nothing_twice(bench) -> None:
    here = bench("here", here=True)
    Path("calls.log").unlink()  # it is part of the pool's options, and so of the names of runs
    there = bench("there")
    assert here.code == there.code == 0, there.err
    assert here.out == there.out and "majority_vote" in here.out
    assert sorted(runs("here")) == sorted(runs("there")) and set(runs("there").values()) == {"finished"}
    for name in runs("here"):
        assert content(Path("here", name)) == content(Path("there", name))
    assert stored("here") == stored("there") and len(stored("there")) == 20
    # one cache for all: two models, ten questions each, whichever of six runs asked first
    said = calls()
    assert len(said) == len({tuple(call[1:]) for call in said}) == 20
    # what every run told stands in one display, here line by line
    for told in ("test majority_vote: 6/6", "test a: 6/6", "dev b: 4/4"):
        assert there.err.count(told) == 2, there.err
    again = bench("there")
    assert again.out == there.out and len(calls()) == 20 and "80 from the cache" in again.err, again.err


def test_a_run_whose_process_is_killed_is_done_again_and_no_record_is_there_twice(bench, caplog) -> None:
    killed: list[int] = []

    def kill() -> None:
        pid = until(lambda: calls())[0][0]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
        Path("go").touch()

    thread = threading.Thread(target=kill)
    thread.start()
    hold = str(Path("go").resolve())
    got = bench("one", hold=hold)
    thread.join()
    assert got.code == 0 and killed, got.err
    assert "is done again, what it has asked is kept: its process was killed" in caplog.text
    assert "(raylet)" not in got.out + got.err
    for name in runs("one"):
        ids = [r["id"] for r in read_records(Path("one", name))]
        assert len(ids) == len(set(ids)) == 6
    assert got.out == bench("plain", here=True, hold=hold).out


@pytest.mark.slow
def test_a_run_that_is_lost_too_often_is_one_line_and_the_others_are_kept(bench) -> None:
    stop = threading.Event()

    def kill() -> None:
        dead: set[int] = set()
        while not stop.wait(0.02):
            for pid, model, _ in calls():
                if model == "b" and pid not in dead:
                    dead.add(pid)
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        more = ("-o", "executor.retries=0", "-o", "seeds=[0]")
        got = bench("lost", more=more, delay=0.5)
    finally:
        stop.set()
        thread.join()
    assert got.code == 1
    (line,) = (x for x in got.err.splitlines() if x.startswith("error: "))
    assert "b on skills, seed 0: lost 1 times, the last time its process was killed" in line
    assert [s for n, s in runs("lost").items() if "single-a" in n] == ["finished"]


def test_what_no_node_can_do_is_refused(bench) -> None:
    got = bench("no", more=("-o", "executor.gpus=2"))
    assert got.code == 2 and not calls()
    assert "error: executor: a run takes 1 cpus, 2 gpus; no node has that (127.0.0.1: " in got.err


@pytest.mark.slow
def test_ctrl_c_leaves_a_grid_that_goes_on_where_it_was(nodes, bench) -> None:
    from grid_helpers import arguments, environment

    command = [sys.executable, "-m", "moco_core", "bench", *arguments("cut", nodes.address, {"delay": 0.4, "batch": 1})]
    process = subprocess.Popen(command, env={**os.environ, **environment()}, stderr=subprocess.PIPE, text=True)
    until(lambda: len(calls()) > 8)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert set(runs("cut").values()) <= {"finished", "interrupted"} and "interrupted" in runs("cut").values()
    done = len(stored("cut"))
    got = bench("cut", delay=0.4, batch=1)
    assert got.code == 0 and set(runs("cut").values()) == {"finished"}
    # what was answered was not asked again
    assert done > 4 and len(calls()) <= 20 + 4
    assert got.out == bench("plain", here=True, delay=0.4, batch=1).out
