"""Joining a cluster, starting one, and what is left of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moco_core.errors import ConfigError
from moco_toolkit_ray import cause_of, connect, here
from moco_toolkit_ray.cluster import gone

STARTS = """
import os, sys, time
from moco_toolkit_ray import connect, nodes
connection = connect()
(node,) = nodes()
print(connection.address, node.cpus, node.name, flush=True)
time.sleep(600)
"""


def processes(word: str) -> list[int]:
    """Return the processes that were started with a word in their command or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            said = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if word.encode() in said and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def listening(pids: set[int]) -> set[str]:
    """Return the addresses, in hexadecimal, that processes listen on."""
    mine = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                mine |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
            except OSError:
                continue
    out = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in mine:
                out.add(fields[1].partition(":")[0])
    return out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_cluster_that_is_started_here_listens_on_loopback_alone_and_ends_with_whoever_started_it(tmp_path) -> None:
    mark = f"moco-mark-{os.getpid()}"
    environment = {**os.environ, "MOCO_MARK": mark, "HOME": str(tmp_path)}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        address, cpus, name = process.stdout.readline().split()
        assert (float(cpus), name) == (here().cpus, "127.0.0.1") and address.startswith("127.0.0.1:")
        running = set(processes(mark))
        assert len(running) > 4  # this is a cluster
        found = listening(running)
        assert found and found <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
        # without the token nobody gets in; it is in no file
        stranger = {**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        code = f"from moco_toolkit_ray import connect, nodes; connect({address!r}); print(nodes())"
        got = subprocess.run([sys.executable, "-c", code], env=stranger, capture_output=True, text=True, timeout=100)
        assert got.returncode and not got.stdout, got.stdout
        assert not (tmp_path / ".ray").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    assert "no Ray cluster is named: started one on this machine alone, with" in said
    until = time.monotonic() + 60
    while left := processes(mark):
        assert time.monotonic() < until, left
        time.sleep(0.2)


def test_what_cannot_be_joined_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for address, said in (
        ("127.0.0.1:9", "no Ray cluster at 127.0.0.1:9 (Connection refused); start one with `ray start --head`"),
        ("nowhere", "address: expected HOST:PORT or auto, got 'nowhere'"),
        ("ray://127.0.0.1:10001", "Ray's client protocol does not serve here"),
    ):
        with pytest.raises(ConfigError) as caught:
            connect(address)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    assert "is gone; what was answered is kept" in str(gone("127.0.0.1:9"))


def test_causes_are_told_from_what_ray_says() -> None:
    killed = RuntimeError(
        "The actor died unexpectedly. Worker unexpectedly exits ... End of file. (1) SIGKILL by OOM killer"
    )
    assert cause_of(killed) == "its process was killed"
    assert cause_of(RuntimeError("Task was killed due to the node running low on memory.")).endswith("Ray ended it")
    assert cause_of(RuntimeError("The actor died because its node has died.")) == "its machine left the cluster"
    assert cause_of(RuntimeError("something\nelse")) == "something else"
