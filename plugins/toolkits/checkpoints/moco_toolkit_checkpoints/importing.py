"""Imports that leave out what a library would bring along and nothing here uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType

__all__ = ["without"]


@contextlib.contextmanager
def without(library: ModuleType, *checks: str) -> Iterator[None]:
    """Let modules of ``library`` that are imported meanwhile find optional packages absent.

    ``checks`` are the library's functions that tell whether one is there. Modules that take them by name in the meantime keep
    the answer; for all others it stays what it was, and the packages themselves can be imported as ever.
    """
    real = {name: getattr(library, name) for name in checks if hasattr(library, name)}
    for name in real:
        setattr(library, name, lambda *_, **__: False)
    try:
        yield
    finally:
        for name, check in real.items():
            setattr(library, name, check)
