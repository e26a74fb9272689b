"""The cores of this machine: how many decode one model, how many models decode side by side, and how cores wait.

Decoding is a chain of short kernels. By default OpenMP's threads spin between two of them: on a machine with anything else to
do, that took twenty times the processor time of one thread (models of 1 M parameters) or ten times (100 M). Threads that wait
passively cost at most a third more than one thread. Models are decoded faster side by side, a core each, than one after the
other on all cores: those of 100 M parameters half as fast again, those of 1 M, which wait for Python's interpreter, a third.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import attrs

__all__ = ["CpuPlan", "cores", "findings", "settle"]

PER_CORE = 100_000_000
"""Parameters up to which a model is decoded by one core where another model can have the next one."""

SMALL = 20_000_000
"""Parameters up to which a second thread gains nothing."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def cores() -> int:
    """Return how many cores this process may use: those it is bound to, and no more than its container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return max(1, min(bound, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no container, or none with a quota
        return bound


def settle(environ: MutableMapping[str, str]) -> None:
    """Have idle threads wait passively, if the user has set nothing of OpenMP.

    OpenMP reads this once, when torch is imported: later it has no effect.
    """
    if "torch" not in sys.modules and not any(environ.get(name) for name in (*_THREADS, *_WAITING)):
        environ["OMP_WAIT_POLICY"] = "PASSIVE"


@attrs.frozen(kw_only=True)
class CpuPlan:
    """How the models on a CPU share it: ``groups`` of cores, and ``threads`` for each model; None where the user decides."""

    cores: int
    groups: int = 1
    threads: int | None = None

    @classmethod
    def of(cls, sizes: Sequence[int], available: int, environ: Mapping[str, str]) -> CpuPlan:
        """Plan for bases of these numbers of parameters.

        Models are decoded side by side, larger ones by as many cores as they can use. The number of threads is one for all,
        and does not change while a pool is open: what a model computes must not depend on who else is busy.
        """
        given = next((environ[name] for name in _THREADS if environ.get(name)), None)
        if not sizes:
            return cls(cores=available)
        largest = max(sizes)
        wanted = max(1, -(-largest // PER_CORE))
        if given is not None:  # one number, or one per level of nesting
            first = given.split(",")[0].strip()
            wanted = int(first) if first.isdecimal() and int(first) else available
        groups = max(1, min(len(sizes), available // wanted))
        threads = None if given is not None else 1 if largest <= SMALL else max(1, available // groups)
        return cls(cores=available, groups=groups, threads=threads)

    def names(self, weights: Mapping[str, int]) -> dict[str, str]:
        """Return a group's name for each base: largest first, to the group with the least on it."""
        if self.groups == 1:
            return dict.fromkeys(weights, "cpu")
        load = [0] * self.groups
        out = {}
        for base in sorted(weights, key=lambda b: -weights[b]):
            group = load.index(min(load))
            load[group] += weights[base]
            out[base] = f"cpu/{group}"
        return out

    def facts(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return what is in force, as JSON data."""
        waiting = environ.get("OMP_WAIT_POLICY", "").lower() or "default"
        return {
            "cores": self.cores,
            "groups": self.groups,
            "threads": self.threads,
            "waiting": waiting,
            **{name: environ[name] for name in _THREADS if environ.get(name)},
        }


def findings() -> Iterator[tuple[str, str, str]]:
    """Yield what ``moco doctor`` says about threads."""
    own = [f"{name}={os.environ[name]}" for name in (*_THREADS, *_WAITING) if os.environ.get(name)]
    if own:
        yield "note", "threads", f"{cores()} cores; {', '.join(own)} is set and left as it is"
    else:
        yield (
            "ok",
            "threads",
            f"{cores()} cores; models decode side by side, those of up to {SMALL // 10**6} M parameters on a core each; "
            "on a busy machine as on an idle one, threads without work wait passively",
        )
