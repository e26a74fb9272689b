"""What is lost under a grid: a node, memory, room, the process that started it, the cluster.

Each takes half a minute: ``pytest plugins/executors/ray -m slow``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from grid_helpers import calls, runs, stored, until

pytestmark = pytest.mark.slow


def test_runs_of_a_node_that_is_lost_are_done_again_on_another(bench, caplog) -> None:
    from moco_toolkit_ray.testing import Nodes

    with Nodes({"cpus": 1}) as nodes:

        def lose() -> None:
            until(calls)
            nodes.add(cpus=1)
            nodes.remove(0)
            Path("go").touch()

        thread = threading.Thread(target=lose)
        thread.start()
        hold = str(Path("go").resolve())
        got = bench("lost", address=nodes.address, hold=hold)
        thread.join()
    assert got.code == 0, got.err
    assert "is done again, what it has asked is kept: " in caplog.text
    assert set(runs("lost").values()) == {"finished"} and len(stored("lost")) == 20
    assert got.out == bench("plain", here=True, hold=hold).out


def test_runs_that_ray_ends_for_their_nodes_memory_are_one_line_that_says_what_to_do(bench) -> None:
    """A node whose memory counts as full at once: every run there is ended. What the grid itself needs is elsewhere."""
    from moco_toolkit_ray.testing import Nodes

    with Nodes() as nodes:
        full = {"RAY_memory_monitor_refresh_ms": "50", "RAY_memory_usage_threshold": "0.01"}
        nodes.add(cpus=1, env=full)
        more = ("-o", "executor.retries=1", "-o", "seeds=[0]", "-o", "baselines=false")
        got = bench("full", address=nodes.address, more=more, hold=str(Path("never").resolve()))
    assert got.code == 1
    (line,) = (x for x in got.err.splitlines() if x.startswith("error: "))
    assert "majority_vote on skills, seed 0: lost 2 times, the last time its machine ran out of memory" in line
    assert "; give each run more memory (executor option memory)" in line


def test_a_cluster_without_room_is_waited_for_and_it_is_said_for_what(nodes, bench, caplog, monkeypatch) -> None:
    import ray

    from moco_executor_ray import executor
    from moco_toolkit_ray import connect

    monkeypatch.setattr(executor, "_LOOK", 1.0)
    connection = connect(nodes.address)
    try:

        @ray.remote(num_cpus=1)
        class Other:
            def there(self) -> bool:
                return True

        others = [Other.remote() for _ in range(2)]
        ray.get([o.there.remote() for o in others])

        def leave() -> None:
            until(lambda: "waiting on the Ray cluster" in caplog.text)
            for other in others:
                ray.kill(other)

        thread = threading.Thread(target=leave)
        thread.start()
        got = bench("room")
        thread.join()
    finally:
        connection.close()
    assert got.code == 0, got.err
    said = "waiting on the Ray cluster for room for the first of 6 runs (1 cpus, 0 gpus each); free there now: 0 cpus, 0 gpus"
    assert said in caplog.text
    assert got.out == bench("plain", here=True).out


def test_a_grid_whose_own_process_was_killed_goes_on_where_it_was(nodes, bench) -> None:
    from grid_helpers import arguments, environment

    command = [sys.executable, "-m", "moco_core", "bench", *arguments("cut", nodes.address, {"delay": 0.4, "batch": 1})]
    process = subprocess.Popen(
        command, env={**os.environ, **environment()}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: len(calls()) > 8)
    process.kill()
    process.wait()
    kept, before = len(stored("cut")), len(calls())
    assert 0 < kept < 20 and "finished" not in runs("cut").values()
    got = bench("cut", delay=0.4, batch=1)
    assert got.code == 0 and set(runs("cut").values()) == {"finished"}, got.err
    assert len(stored("cut")) == 20
    # what was stored is not asked again; two runs had a call each under way when they were cut off
    assert len(calls()) - before <= 20 - kept + 2
    assert got.out == bench("plain", here=True, delay=0.4, batch=1).out


def test_a_cluster_that_is_gone_ends_the_grid_with_one_line_and_keeps_what_was_answered(bench) -> None:
    from grid_helpers import arguments, environment

    from moco_toolkit_ray.testing import Nodes

    with Nodes({"cpus": 2}) as nodes:
        command = [sys.executable, "-m", "moco_core", "bench", *arguments("gone", nodes.address, {"delay": 0.5, "batch": 1})]
        process = subprocess.Popen(
            command, env={**os.environ, **environment()}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        until(lambda: len(calls()) > 3)
        nodes.end()
        _, err = process.communicate(timeout=200)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert process.returncode in (1, 2) and len(errors) == 1 and "Traceback" not in err, err
    assert re.search(r"the Ray cluster at 127\.0\.0\.1:\d+ is gone; what was answered is kept", errors[0])
    before, kept = len(calls()), len(stored("gone"))
    assert 0 < kept < 20
    assert bench("gone", here=True, delay=0.5, batch=1).code == 0
    assert len(calls()) - before == 20 - kept
