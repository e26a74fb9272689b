"""What a program may use: processes, threads, memory, time, output, disk; and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from sandboxed_programs import isolated, run

from moco_toolkit_sandbox import Limits, Sandbox


@isolated
def test_fork_bomb_is_contained() -> None:
    outcome = run("import os\nwhile True:\n    os.fork()", Limits(seconds=5, processes=20))
    assert outcome.status in ("failed", "processes", "timeout")
    assert run("pass").passed


@isolated
def test_threads_are_bounded() -> None:
    program = "import threading, time\nfor _ in range(200): threading.Thread(target=time.sleep, args=(5,)).start()"
    assert run(program, Limits(seconds=10, processes=20)).status in ("failed", "processes")


@isolated
def test_memory_bomb_is_contained() -> None:
    assert run("x = bytearray(1 << 40)").status == "memory"
    assert run("x = []\nwhile True: x.append(bytearray(1 << 24))").status == "memory"


@isolated
def test_memory_of_many_processes_counts_together() -> None:
    program = """
import os, time
for _ in range(12):
    if os.fork() == 0:
        x = bytearray(b'x') * (200 << 20)
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""
    assert run(program, Limits(seconds=60, memory=256 << 20)).status == "memory"


@isolated
def test_endless_loop_and_sleep_end_at_the_clock() -> None:
    for program in ("while True: pass", "import time; time.sleep(1000)"):
        assert run(program, Limits(seconds=1)).status == "timeout"


@isolated
def test_ignoring_signals_does_not_help() -> None:
    program = "import signal, time\nfor s in (1, 2, 3, 15, 24): signal.signal(s, signal.SIG_IGN)\ntime.sleep(1000)"
    assert run(program, Limits(seconds=1)).status == "timeout"


@isolated
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_huge_output_is_cut_off(stream: str) -> None:
    program = f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"
    assert run(program).status == "output"


@isolated
def test_files_and_disk_are_bounded() -> None:
    assert "too large" in run("open('a', 'wb').write(b'x' * (64 << 20))", Limits(file_size=1 << 20)).detail
    fill = "for i in range(100): open(str(i), 'wb').write(b'x' * (1 << 20))"
    assert "No space left" in run(fill, Limits(disk=8 << 20)).detail
    shared = "for i in range(100): open(f'/dev/shm/{i}', 'wb').write(b'x' * (1 << 20))"
    assert run(shared, Limits(disk=8 << 20)).status == "failed"


@isolated
def test_no_process_is_left_behind() -> None:
    mark = f"moco-left-{os.getpid()}-{time.monotonic_ns()}"
    program = f"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        libc = __import__('ctypes').CDLL(None)
        libc.prctl(15, {mark[-15:]!r}.encode())
        time.sleep(600)
    os._exit(0)
time.sleep(0.3)
"""
    assert run(program).passed
    deadline = time.monotonic() + 5
    while _named(mark[-15:]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _named(mark[-15:])


def _named(name: str) -> list[str]:
    out = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                out.append(path.parent.name)
        except OSError:
            continue
    return out


@isolated
def test_cancelling_kills_the_program() -> None:
    async def work() -> None:
        task = asyncio.create_task(Sandbox().run("import time; time.sleep(1000)", Limits(seconds=1000)))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(work(), 60))


@isolated
def test_threads_and_processes_still_work() -> None:
    program = """
import os, threading
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
if os.fork() == 0:
    os._exit(0)
assert os.wait()[1] == 0
"""
    assert run(program).passed
