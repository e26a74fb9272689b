"""What code leaves behind in the process and the folder that it ran in."""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import attrs

from moco_toolkit_authoring.shared import Generators, Settings

__all__ = ["Trace", "empty_folder", "process_as_it_was", "tensor_bytes", "unseen_folder"]

_PATIENCE = 2.0  # seconds that a thread or a program which was told to end may take


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """Work in an empty folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


@contextlib.contextmanager
def unseen_folder(given: Any) -> Iterator[Callable[[], list[str]]]:
    """Work in an empty folder unless ``given``, the options, hold a path from here. What is yielded lists its files."""
    if any(os.path.lexists(text) and not os.path.isabs(text) for text in _texts(given)):
        yield list
        return
    with empty_folder() as folder:
        yield lambda: sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value and "\0" not in value:
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


@attrs.define
class Trace:
    """What was found afterwards; empty if nothing was."""

    problems: list[str] = attrs.field(factory=list)

    def require_none(self) -> None:
        """Fail the check with the first problem."""
        if self.problems:
            raise AssertionError(self.problems[0])


# ---------------------------------------------------------------- threads, programs and files


def _open_files() -> Counter[str]:
    """Return what files of the file system are open, and how often; nothing where the system does not tell."""
    found: Counter[str] = Counter()
    with contextlib.suppress(OSError):
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the one that lists them is closed by now
                found[os.readlink(f"/proc/self/fd/{number}")] += 1
    return Counter({k: n for k, n in found.items() if k.startswith("/") and not k.startswith(("/proc/", "/dev/pts/"))})


@attrs.define
class _Held:
    """The threads, programs and open files of the process at one time, and the programs that were started since."""

    threads: set[threading.Thread] = attrs.field(factory=lambda: set(threading.enumerate()))
    files: Counter[str] = attrs.field(factory=_open_files)
    children: set[Any] = attrs.field(factory=lambda: set(multiprocessing.active_children()))
    began: list[subprocess.Popen[Any]] = attrs.field(factory=list)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note every program that is started."""
        real, began = subprocess.Popen.__init__, self.began

        def start(popen: subprocess.Popen[Any], *args: Any, **given: Any) -> None:
            real(popen, *args, **given)
            began.append(popen)

        with mock.patch.object(subprocess.Popen, "__init__", start):
            yield

    def left(self) -> list[str]:
        """Return what is still there, once what is ending has ended. Programs are ended."""
        until, collected = time.monotonic() + _PATIENCE, False
        while found := self._look():
            if not collected:
                gc.collect()
                collected = True
            elif time.monotonic() > until:
                break
            else:
                time.sleep(0.01)
        for program in self.began:
            if program.poll() is None:
                program.kill()
                program.wait()
        for child in set(multiprocessing.active_children()) - self.children:
            child.kill()
            child.join()
        return found

    def _look(self) -> list[str]:
        threads = sorted(t.name for t in set(threading.enumerate()) - self.threads if t.is_alive())
        running = [str(p.args)[:60] for p in self.began if p.poll() is None]
        running += [c.name for c in set(multiprocessing.active_children()) - self.children]
        files = sorted((_open_files() - self.files).elements())
        out = []
        if threads:
            told = ", ".join(threads[:3])
            out.append(f"{len(threads)} threads still run ({told}); join them, or await asyncio.to_thread")
        if running:
            out.append(f"{len(running)} programs still run ({running[0]}); end them before returning, or in close()")
        if files:
            out.append(f"{len(files)} files are still open ({files[0]}); use `with open(...)`, or close them in close()")
        return out


@contextlib.contextmanager
def process_as_it_was(instead: str, *, shared: bool = True) -> Iterator[Trace]:
    """Find out what is printed and what of the process, which everybody ``shared`` there, is not as it was.

    That is: its generators, environment and settings; threads and programs that still run, files that are still open.
    ``instead`` says what to draw from, and what to use in place of printing. All but open files and threads is put back.

    With ``shared=False`` only printing is told: the libraries that are imported meanwhile move much of it.
    """
    trace, said, before, held = Trace(), io.StringIO(), Settings(), _Held()
    generators = Generators.move()
    try:
        with contextlib.redirect_stdout(said), held.watching():
            yield trace
    finally:
        used, moved, variables = generators.used(), [*before.moved()], before.variables()
        generators.put_back()
        before.put_back(variables if shared else [])
    problems = [f"{name} is seeded or drawn from: it is everybody's; {instead}" for name in used]
    problems += [f"{', '.join(variables[:3])} of the environment changed: it is everybody's"] if variables else []
    problems += [f"{s.what} is another one afterwards: it is everybody's; {s.instead}" for s, _ in moved]
    if shared:
        trace.problems += problems
    if said.getvalue():
        trace.problems.append(f"{said.getvalue()[:60]!r} is printed, which breaks --json; use logging; {instead}")
    if shared:
        trace.problems += held.left()


def tensor_bytes() -> int:
    """Return how many bytes the tensors of this process hold; none where torch was not imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    # read the type, not the object: asking arbitrary objects about their class can run their code
    kinds = (torch.Tensor, torch.nn.Parameter)
    return sum(o.numel() * o.element_size() for o in gc.get_objects() if type(o) in kinds)
