"""Imports of large libraries, in less time: without what nothing here uses, and without looking for garbage."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator
from types import ModuleType

__all__ = ["uncollected", "without"]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python's collector out of what is imported meanwhile, until the process ends: it would look through all of it
    again and again, and find it in use. That takes a tenth to a quarter of importing transformers.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        gc.freeze()
        atexit.register(gc.unfreeze)  # extension modules tell of leaks where they are not taken apart


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
