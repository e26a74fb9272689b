"""What is lost on the way: actors, nodes, memory, the run itself, the cluster.

All but the first take a cluster of their own: ``pytest plugins/pools/ray -m slow``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_helpers import calls_in

from moco_core.errors import EngineOutOfMemory, ModelCallError
from moco_core.runs.records import read_records
from moco_core.types import Sampling
from moco_toolkit_authoring import open_state

GREEDY = Sampling(max_new_tokens=6)
MODELS = Path(__file__).parent / "ray_models.py"


def until(true: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
    return found


async def held(models: Any, meanwhile: Callable[[], None]) -> list[str]:
    """Ask eight things, one of which is held back, do something else meanwhile, and return the answers."""
    prompts = ["hold this", *(f"prompt {i}" for i in range(7))]
    async with open_state(sampling=GREEDY) as state:
        context = state.context("fit")
        calls = asyncio.gather(*(context.generate(models[0], p) for p in prompts))
        other = asyncio.create_task(asyncio.to_thread(meanwhile))
        try:
            return [reply.text for reply in await calls]
        finally:
            await other


ANSWERS = [p[::-1] for p in ("hold this", *(f"prompt {i}" for i in range(7)))]


def test_calls_of_an_actor_that_is_killed_are_asked_again(cluster, source, scripted, tmp_path, caplog) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    section = {"name": scripted, "names": ["a"], "log": str(log), "hold": str(go)}
    models = source(section, address=cluster.address).models()

    def kill() -> None:
        pid = until(lambda: calls_in(log))[0][0]
        os.kill(pid, signal.SIGKILL)
        go.touch()

    assert asyncio.run(held(models, kill)) == ANSWERS
    assert len({pid for pid, _, _ in calls_in(log)}) == 2
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "gone" in r.getMessage()]
    assert said == (
        "the Ray actor of a is gone: its process was killed; starting it again, what it left unanswered is asked again"
    )


def test_an_actor_that_dies_again_and_again_fails_its_calls_with_one_line(cluster, source, scripted, tmp_path) -> None:
    log, stop = tmp_path / "log", threading.Event()
    section = {"name": scripted, "names": ["a"], "log": str(log), "hold": str(tmp_path / "never")}
    models = source(section, address=cluster.address, restarts=1).models()

    def kill() -> None:
        dead: set[int] = set()
        while not stop.wait(0.05):
            for pid, _, _ in calls_in(log):
                if pid not in dead:
                    dead.add(pid)
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Timer(200, stop.set)
    thread.start()
    try:
        with pytest.raises(ModelCallError, match=r"^the Ray actor of a died 2 times in a row: its process was killed$"):
            asyncio.run(_first(models, kill, stop))
    finally:
        thread.cancel()


async def _first(models: Any, meanwhile: Callable[[], None], stop: threading.Event) -> None:
    async with open_state(sampling=GREEDY) as state:
        other = asyncio.create_task(asyncio.to_thread(meanwhile))
        try:
            await state.context("fit").generate(models[0], "hold this")
        finally:
            stop.set()
            await other


@pytest.mark.slow
def test_an_actor_moves_to_another_node_when_its_own_is_lost(source, scripted, tmp_path, monkeypatch) -> None:
    from moco_toolkit_ray.testing import Nodes

    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    log, go = tmp_path / "log", tmp_path / "go"
    section = {"name": scripted, "names": ["a"], "log": str(log), "hold": str(go)}
    with Nodes({"cpus": 1}) as nodes:
        models = source(section, address=nodes.address).models()

        def lose() -> None:
            until(lambda: calls_in(log))
            nodes.add(cpus=1)
            nodes.remove(0)
            go.touch()

        try:
            assert asyncio.run(held(models, lose)) == ANSWERS
        finally:
            _leave()


@pytest.mark.slow
def test_a_cluster_without_room_is_waited_for_and_it_is_said_for_what(
    cluster, source, scripted, tmp_path, caplog, monkeypatch
) -> None:
    import ray

    from moco_pool_ray import fleet

    looks: list[float] = []
    look = fleet._Waiting.look
    monkeypatch.setattr(fleet._Waiting, "look", lambda self, stopped: (looks.append(time.monotonic()), look(self, stopped))[1])
    models = source({"name": scripted, "names": ["a"]}, address=cluster.address).models()  # joins the cluster

    @ray.remote(num_cpus=1)
    class Other:
        def there(self) -> bool:
            return True

    others = [Other.remote() for _ in range(2)]
    ray.get([o.there.remote() for o in others])

    def leave() -> None:
        until(lambda: "waiting" in caplog.text)
        for other in others:
            ray.kill(other)

    async def work() -> str:
        async with open_state(sampling=GREEDY) as state:
            other = asyncio.create_task(asyncio.to_thread(leave))
            reply = await state.context("fit").generate(models[0], "hello")
            await other
            return reply.text

    assert asyncio.run(work()) == "olleh"
    assert len(looks) <= (looks[-1] - looks[0]) / fleet._LOOK + 2  # it waits, and does not ask again and again
    assert "waiting on the Ray cluster for room for a (1 cpus, 0.25 GiB); free there now: 0 cpus, 0 gpus" in caplog.text


@pytest.mark.slow
def test_an_actor_that_ray_ends_for_its_memory_is_one_line(source, scripted, monkeypatch) -> None:
    """A machine whose memory counts as full at once: everything that works there is ended."""
    from moco_toolkit_ray.testing import Nodes

    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    full = {"RAY_memory_monitor_refresh_ms": "50", "RAY_memory_usage_threshold": "0.01"}
    with Nodes({"cpus": 1}, **full) as nodes:
        models = source({"name": scripted, "names": ["a"]}, address=nodes.address, restarts=1).models()

        async def work() -> None:
            async with open_state(sampling=GREEDY) as state:
                await state.context("fit").generate(models[0], "hello")

        try:
            with pytest.raises((ModelCallError, EngineOutOfMemory), match="ran out of memory, and Ray ended it"):
                asyncio.run(work())
        finally:
            _leave()


def _leave() -> None:
    import ray

    ray.shutdown()


# ---------------------------------------------------------------- the run itself


def command(address: str, folder: Path, **pool: Any) -> list[str]:
    out = ["run", "majority_vote", "-d", "skills", "-p", "ray", "--test", "8", "--dev", "2", "--plugin", str(MODELS)]
    out += ["--out", str(folder / "runs"), "--cache", str(folder / "calls.sqlite"), "-o", f"pool.address={address}"]
    section = json.dumps({"name": "ray_scripted", "log": str(folder / "log"), **pool})
    return [sys.executable, "-m", "moco_core", *out, "-o", "pool.memory=0.25", "-o", f"pool.pool={section}"]


def stored(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(file)) as db:
        return int(db.execute("SELECT count(*) FROM calls").fetchone()[0])


def environment() -> dict[str, str]:
    return {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}


@pytest.mark.slow  # a killed process has its calls for a quarter of a minute
def test_a_run_that_was_killed_goes_on_where_it_was(nodes, tmp_path) -> None:
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    given = command(nodes.address, tmp_path, delay=0.5)
    process = subprocess.Popen(given, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: len(calls_in(tmp_path / "log")) > 5)
    process.kill()
    process.wait()
    before, kept = len(calls_in(tmp_path / "log")), stored(tmp_path / "calls.sqlite")
    got = subprocess.run(given, env=environment(), capture_output=True, text=True, timeout=200)
    assert got.returncode == 0, got.stderr
    (folder,) = (p for p in (tmp_path / "runs").iterdir() if "majority_vote" in p.name)
    assert [r["index"] for r in read_records(folder)] == list(range(8))
    # two models, ten questions: what was stored is not asked again
    assert 0 < kept < 20 and len(calls_in(tmp_path / "log")) - before == 20 - kept


@pytest.mark.slow
def test_a_cluster_that_is_gone_ends_the_run_with_one_line(tmp_path) -> None:
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    from moco_toolkit_ray.testing import Nodes

    with Nodes({"cpus": 2}) as nodes:
        given = command(nodes.address, tmp_path, delay=1.0)
        process = subprocess.Popen(given, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until(lambda: calls_in(tmp_path / "log"))
        nodes.end()
        _, err = process.communicate(timeout=200)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert process.returncode in (1, 2) and len(errors) == 1 and "Traceback" not in err, err
    assert re.search(r"the Ray cluster at 127\.0\.0\.1:\d+ is gone; what was answered is kept", errors[0])
