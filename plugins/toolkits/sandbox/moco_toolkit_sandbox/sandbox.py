"""The sandbox: starts programs, watches them, and tells how they ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from platform import machine
from typing import Any, Literal, get_args

from moco_toolkit_sandbox.commands import Command, bubblewrap, container, limits_only, rlimits
from moco_toolkit_sandbox.filters import KEYCTL, system_calls
from moco_toolkit_sandbox.outcome import Limits, Outcome, SandboxError, SandboxUnavailable, Status
from moco_toolkit_sandbox.watch import Watch

__all__ = ["ISOLATIONS", "Isolation", "Sandbox"]

Isolation = Literal["bubblewrap", "docker", "podman", "limits"]
ISOLATIONS: tuple[str, ...] = get_args(Isolation)

_INSTALL = (
    "install it (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap), or choose "
    "isolation: docker or podman; isolation: limits runs programs with the rights of this account, bounded in time and "
    "memory only"
)
_START_ROOM = 30.0
"""Seconds that a sandbox may take to start on a busy machine; they do not count for the program."""


class Sandbox:
    """Runs Python programs, each in a fresh process, at most ``parallel`` at once (by default one per core).

    ``bubblewrap`` isolates with Linux namespaces, ``docker`` and ``podman`` with a container of ``image``. ``limits`` is
    weak: it bounds time, memory, processes and output, but the program has the rights and files of this account.
    ``packages`` are folders that a program may import from (bubblewrap only), read-only.
    """

    def __init__(
        self,
        isolation: Isolation = "bubblewrap",
        *,
        parallel: int | None = None,
        image: str = "python:3.11-slim",
        packages: Sequence[str] = (),
    ) -> None:
        if isolation not in ISOLATIONS:
            raise SandboxUnavailable(f"isolation: expected one of {', '.join(ISOLATIONS)}, got {isolation!r}")
        self.isolation = isolation
        self.image = image
        self.packages = tuple(packages)
        self.parallel = parallel or _cores()
        self._gate: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self._variant: dict[str, bool] | None = None
        self._checking: asyncio.Lock | None = None

    # ---------------------------------------------------------------- public

    async def check(self) -> None:
        """Raise SandboxUnavailable if this machine cannot isolate programs as asked. Cheap after the first time."""
        if self._variant is not None:
            return
        if self._checking is None:
            self._checking = asyncio.Lock()
        async with self._checking:
            if self._variant is None:
                self._variant = await self._probe()

    def problem(self) -> str:
        """Return why programs cannot be isolated here, or the empty string; from anywhere, also inside a running loop."""

        def asked() -> str:
            try:
                asyncio.run(type(self)(self.isolation, image=self.image, packages=self.packages).check())
            except SandboxUnavailable as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(1) as apart:
            return apart.submit(asked).result()

    async def run(
        self, program: str, limits: Limits | None = None, *, setup: str = "", tests: str = "", entry_point: str = ""
    ) -> Outcome:
        """Run a program to its end, and ``tests`` after it, and tell how that ended.

        ``setup`` runs before the program and is trusted. ``tests`` see the names that the program defines, but builtins
        and modules as they were; what the function ``entry_point`` returns to them may not claim to equal everything.

        Raises SandboxUnavailable if programs cannot be isolated here, SandboxError if the sandbox failed.
        """
        await self.check()
        slot = self._slot()
        await slot.acquire()
        with contextlib.ExitStack() as held:
            held.callback(slot.release)
            job = {"setup": setup and f"{setup}\n", "program": program, "tests": tests, "entry": entry_point}
            return await self._run(job, limits or Limits(), self._variant or {}, held)

    # ---------------------------------------------------------------- inside

    def _slot(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate[0] is not loop:
            self._gate = (loop, asyncio.Semaphore(self.parallel))
        return self._gate[1]

    async def _probe(self) -> dict[str, bool]:
        if sys.platform == "win32":
            raise SandboxUnavailable(
                "isolation: programs cannot be isolated on Windows; use WSL, or a machine with Linux"
            )
        if self.isolation == "limits":
            return {}
        where = {"bubblewrap": "bwrap"}.get(self.isolation, self.isolation)
        if shutil.which(where) is None:
            raise SandboxUnavailable(
                f"isolation: {self.isolation} ({where}) is not installed, so no model-written code is run; {_INSTALL}"
            )
        root = os.geteuid() == 0
        variants: list[dict[str, bool]] = [{}]
        if self.isolation == "bubblewrap":
            variants = [
                {"privileged": privileged, "nested": nested, "proc": proc}
                for privileged in ((True, False) if root else (False,))
                for proc in (True, False)
                for nested in ((True,) if privileged else (False, True))
            ]
        problem = ""
        for variant in variants:
            try:
                job = {"setup": "", "program": "pass", "tests": "", "entry": ""}
                if (await self._run(job, Limits(), variant)).passed:
                    return variant
                problem = problem or "a trivial program did not reach its end"
            except SandboxError as error:
                problem = problem or str(error)
        raise SandboxUnavailable(f"isolation: {self.isolation} does not work here ({problem}); {_HELP[self.isolation]}")

    def _command(self, name: str, folder: str, limits: Limits, variant: dict[str, bool]) -> Command:
        if self.isolation == "bubblewrap":
            return bubblewrap(shutil.which("bwrap") or "bwrap", limits, packages=self.packages, **variant)
        if self.isolation == "limits":
            return limits_only(folder)
        return container(shutil.which(self.isolation) or self.isolation, self.image, name, limits)

    async def _run(
        self, code: dict[str, str], limits: Limits, variant: dict[str, bool], held: contextlib.ExitStack | None = None
    ) -> Outcome:
        name = f"moco-{secrets.token_hex(8)}"
        token = secrets.token_hex(16)
        with contextlib.ExitStack() as stack:
            folder = "/"
            if self.isolation == "limits":
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="moco-", ignore_cleanup_errors=True))
            command = self._command(name, folder, limits, variant)
            job = stack.enter_context(tempfile.TemporaryFile())
            bounds = rlimits(limits)
            if self.isolation == "limits":  # counts all processes of the account, not those of the program
                del bounds["RLIMIT_NPROC"]
            elif self.isolation != "bubblewrap":  # the runtime keeps these
                bounds = {k: bounds[k] for k in ("RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_CORE")}
            payload = code | {"token": token, "uid": command.uid, "rlimits": bounds}
            payload |= {
                "filter": system_calls().hex() if sys.platform == "linux" else "",
                "keyctl": KEYCTL.get(machine(), 0),
            }
            payload["strict"] = self.isolation == "bubblewrap"  # a container has a filter of its own
            job.write(json.dumps(payload).encode("utf-8", "surrogatepass"))
            job.seek(0)
            try:
                process = await asyncio.create_subprocess_exec(
                    *command.arguments,
                    stdin=job,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env=command.environment,
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as error:
                raise SandboxError(f"the sandbox could not be started: {error}") from error
            watch = Watch(process.pid, limits, token.encode(), group=self.isolation == "limits")
            try:
                broken = await self._attend(process, watch, limits)
            finally:
                await self._kill(process, name, held)
            return _judge(process.returncode, watch, broken, limits)

    async def _attend(self, process: asyncio.subprocess.Process, watch: Watch, limits: Limits) -> Status | None:
        """Wait for the end of a program, or for the first limit it breaks."""
        assert process.stdout is not None and process.stderr is not None
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[Status] = loop.create_future()
        readers = [
            loop.create_task(watch.read(process.stdout, broken, keep=True)),
            loop.create_task(watch.read(process.stderr, broken, keep=False)),
        ]
        guards = [loop.create_task(watch.clock(broken, _START_ROOM)), loop.create_task(watch.usage(broken))]
        ended = loop.create_task(process.wait())
        finished = loop.create_task(watch.finished.wait())
        awaited: set[asyncio.Future[Any]] = {ended, broken, finished}
        try:
            # the stub's last word ends the wait: something the program left behind may hold its pipes open
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():  # what was written before the end is still in the pipes
                await asyncio.wait(readers, timeout=2.0)
            return broken.result() if broken.done() else None
        finally:
            for task in (*readers, *guards, ended, finished):
                task.cancel()
            await asyncio.gather(*readers, *guards, ended, finished, return_exceptions=True)
            broken.cancel()

    async def _kill(
        self, process: asyncio.subprocess.Process, name: str, held: contextlib.ExitStack | None = None
    ) -> None:
        """Kill the whole group; with namespaces, everything inside dies with its first process.

        Where a group holds everything, ``held`` is let go at once: the kernel takes its time to clear up after a dead
        program, and the next one can use it.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if held is not None and self.isolation == "bubblewrap":
            held.close()
        if self.isolation in ("docker", "podman") and process.returncode is None:
            killer = await asyncio.create_subprocess_exec(
                shutil.which(self.isolation) or self.isolation,
                "kill",
                name,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await killer.wait()
        # asyncio reports an end only once the pipes are closed, and those are read on only while somebody reads
        drains = [asyncio.ensure_future(_drain(s)) for s in (process.stdout, process.stderr) if s is not None]
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait({ended}, timeout=5.0)
        # a process that escaped the group (limits mode) may hold the other ends: let go of ours in any case
        transport = getattr(process, "_transport", None)
        if transport is not None:
            transport.close()
        await asyncio.wait({ended}, timeout=5.0)
        for task in (*drains, ended):
            task.cancel()
        await asyncio.gather(*drains, ended, return_exceptions=True)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


_HELP = {
    "bubblewrap": (
        "unprivileged user namespaces may be switched off: allow them (sysctl kernel.unprivileged_userns_clone=1, or an "
        "AppArmor profile for bwrap), or choose isolation: docker or podman"
    ),
    "docker": "check that 'docker run' works for this account and that the image is present",
    "podman": "check that 'podman run' works for this account and that the image is present",
    "limits": "",
}


def _cores() -> int:
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


def _judge(code: int | None, watch: Watch, broken: Status | None, limits: Limits) -> Outcome:
    reports = watch.reports()
    if not any("start" in r for r in reports):
        words = watch.errors().strip().split("\n")[-1][-300:]
        raise SandboxError(f"the sandbox did not start the program: {words or f'exit code {code}'}")
    last: dict[str, Any] = reports[-1]
    if broken is None and last.get("passed"):
        return Outcome(status="passed")
    if broken is not None:
        told = {
            "timeout": f"no end within {limits.seconds:g} s",
            "memory": f"more than {limits.memory >> 20} MiB",
            "processes": f"more than {limits.processes} processes",
            "output": f"more than {limits.output >> 10} KiB of output",
        }
        return Outcome(status=broken, detail=told[broken])
    if "error" in last:
        status: Status = "memory" if last["error"] == "MemoryError" else "failed"
        return Outcome(status=status, detail=f"{last['error']}: {last.get('detail', '')}".rstrip(": ")[:500])
    number = -code if code is not None and code < 0 else code - 128 if code is not None and code > 128 else 0
    if number == signal.SIGXCPU:
        return Outcome(status="timeout", detail="no end within its processor time")
    how = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {code}"
    return Outcome(status="failed", detail=f"ended before the end of the tests ({how})")
