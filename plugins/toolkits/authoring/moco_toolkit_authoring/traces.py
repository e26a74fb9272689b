"""What code leaves behind in the process and the folder that it ran in."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from moco_toolkit_authoring.kit import require

__all__ = ["Trace", "empty_folder", "process_as_it_was", "tensor_bytes"]


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


@attrs.define
class Trace:
    """What was found afterwards; empty if nothing was."""

    problems: list[str] = attrs.field(factory=list)

    def require_none(self) -> None:
        """Fail the check with the first problem."""
        require(not self.problems, self.problems[0] if self.problems else "")


@contextlib.contextmanager
def process_as_it_was(instead: str, *, shared: bool = True) -> Iterator[Trace]:
    """Find out what is printed and, of what is ``shared``, drawn from the generator of ``random`` or set in the environment.

    ``instead`` says what to draw from, and what to use in place of printing. Generator and environment are put back.
    """
    trace, said, before, environment = Trace(), io.StringIO(), random.getstate(), dict(os.environ)
    random.seed()  # a place that nobody comes to by seeding
    generator = random.getstate()
    try:
        with contextlib.redirect_stdout(said):
            yield trace
    finally:
        if random.getstate() != generator and shared:
            trace.problems.append(f"random, the module, is seeded or drawn from: it is everybody's; {instead}")
        random.setstate(before)
        if said.getvalue():
            trace.problems.append(f"{said.getvalue()[:60]!r} is printed, which breaks --json; use logging; {instead}")
        own = ("PYTEST_CURRENT_TEST",)
        changed = sorted(k for k in {*os.environ, *environment} if os.environ.get(k) != environment.get(k) and k not in own)
        if changed and shared:
            trace.problems.append(f"{', '.join(changed[:3])} of the environment changed: it is everybody's")
            os.environ.clear()
            os.environ.update(environment)


def tensor_bytes() -> int:
    """Return how many bytes the tensors of this process hold; none where torch was not imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    # read the type, not the object: asking arbitrary objects about their class can run their code
    kinds = (torch.Tensor, torch.nn.Parameter)
    return sum(o.numel() * o.element_size() for o in gc.get_objects() if type(o) in kinds)
