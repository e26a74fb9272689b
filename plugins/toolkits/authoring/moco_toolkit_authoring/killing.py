"""Work that is killed while it is done, to see what the next process makes of what it left."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable

__all__ = ["killed"]


def killed(work: Callable[[], object], *, seconds: float = 120.0) -> None:
    """Do some work that ends in SIGKILL in a fork of this process, whose libraries are there already.

    Only where ``os.fork`` exists. Raises AssertionError if the work ends in another way, or takes longer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons dislike forks
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    until = time.monotonic() + seconds
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"the work took longer than {seconds:g} s")
        time.sleep(0.02)
    if not os.WIFSIGNALED(done[1]) or os.WTERMSIG(done[1]) != signal.SIGKILL:
        raise AssertionError(f"the work was not killed: it ended with status {done[1]}")
