"""Watching a running program from outside: its clock, what it writes, and what its processes use together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Any

from moco_toolkit_sandbox.outcome import Limits, Status

__all__ = ["Watch"]

_CHUNK = 1 << 16
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Watch:
    """What is seen of one program. The token marks the lines that the stub wrote, not the program."""

    def __init__(self, pid: int, limits: Limits, token: bytes, *, group: bool) -> None:
        self._pid = pid
        self._limits = limits
        self._token = token
        self._group = group
        self._total = 0
        self._kept = bytearray()
        self._errors = bytearray()
        self._started = asyncio.Event()
        self.finished = asyncio.Event()

    async def read(self, stream: asyncio.StreamReader, broken: asyncio.Future[Status], *, keep: bool) -> None:
        """Read a stream to its end; stop the program when it wrote too much. ``keep`` holds what was read."""
        target = self._kept if keep else self._errors
        while chunk := await stream.read(_CHUNK):
            self._total += len(chunk)
            target += chunk
            if keep and (seen := target.count(self._token)):
                self._started.set()
                if seen > 1 and target.endswith(b"\n"):
                    self.finished.set()
            if self._total > self._limits.output + 1024:
                _settle(broken, "output")
                return

    async def clock(self, broken: asyncio.Future[Status], room: float) -> None:
        """Stop the program when its time is over; the time that the sandbox takes to start is not the program's."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._started.wait(), room)
        await asyncio.sleep(self._limits.seconds)
        _settle(broken, "timeout")

    async def usage(self, broken: asyncio.Future[Status]) -> None:
        """Stop a program whose processes use too much together: the kernel's limits are per process.

        Resident memory counts shared pages once per process, so twice the limit is allowed to the sum.
        """
        await self._started.wait()
        while True:
            await asyncio.sleep(0.1)
            pids = _descendants(self._pid)
            # two processes are the sandbox's own
            if len(pids) > self._limits.processes + 2:
                _settle(broken, "processes")
                return
            if len(pids) > 2 and sum(_resident(p) for p in pids) > 2 * self._limits.memory:
                _settle(broken, "memory")
                return

    def reports(self) -> list[dict[str, Any]]:
        """Return what the stub reported, in order."""
        out = []
        for line in bytes(self._kept).split(b"\n"):
            if line.startswith(self._token):
                with contextlib.suppress(ValueError):
                    data = json.loads(line[len(self._token) :])
                    if isinstance(data, dict):
                        out.append(data)
        return out

    def errors(self) -> str:
        """Return what was written to standard error."""
        return bytes(self._errors).decode("utf-8", "replace")


def _settle(broken: asyncio.Future[Status], status: Status) -> None:
    if not broken.done():
        broken.set_result(status)


def _descendants(pid: int) -> list[int]:
    """Return a process and all below it; empty where the kernel does not tell."""
    out: list[int] = []
    queue = [pid]
    while queue and len(out) < 4096:
        current = queue.pop()
        out.append(current)
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{current}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{current}/task/{thread}/children") as file:
                    queue += [int(p) for p in file.read().split()]
    return out


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
