"""One connection of this process to a Ray cluster: an existing one, or one of this machine alone."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from moco_core.errors import ConfigError, PoolError
from moco_toolkit_ray.starting import Started, start

__all__ = ["Connection", "Node", "connect", "gone", "here", "nodes"]

_log = logging.getLogger(__name__)

_KNOCK = 5.0  # seconds to wait for a cluster's port
_SHARE = 0.7  # of the free memory, for the processes of a local cluster; the rest is everybody's
_HINT = "start one with `ray start --head`, or leave address out to use this machine alone"


@attrs.frozen(kw_only=True)
class Node:
    """A machine of a cluster and all that it has, used or not. ``memory`` is in bytes; ``others`` are further resources."""

    id: str
    name: str
    cpus: float
    gpus: float
    memory: int
    others: Mapping[str, float] = attrs.field(factory=dict)


def here() -> Node:
    """Return this machine as the one node of a cluster that is not started yet."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        gpus = min(gpus, len([d for d in visible.split(",") if d.strip()]))
    return Node(id="here", name="this machine", cpus=cpus, gpus=gpus, memory=int(_SHARE * _free_memory()))


def _free_memory() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 8 << 30  # no way to know: assume a small machine


class Connection:
    """This process's way into a cluster. ``close`` undoes what :func:`connect` did, and nothing that was there before."""

    def __init__(self, address: str, *, own: bool, started: Started | None = None) -> None:
        self.address = address
        self._own = own
        self._started = started

    @property
    def local(self) -> bool:
        """Whether the cluster was started here, for this process."""
        return self._started is not None

    def close(self) -> None:
        """Disconnect, and end a cluster that was started here."""
        if self._own:
            import ray

            self._own = False
            with contextlib.suppress(Exception):
                ray.shutdown()
        if self._started is not None:
            self._started.end()
            self._started = None


def connect(address: str = "") -> Connection:
    """Connect to the cluster at ``address``; without one to that of ``$RAY_ADDRESS``, else to one started here.

    ``auto`` is a cluster that runs on this machine already. A process that is connected stays so, and a worker of a cluster
    is. Raises ConfigError with one line if there is no cluster.
    """
    if "://" in address:
        raise ConfigError(
            f"address: {address}: Ray's client protocol does not serve here; run on a node of the cluster"
        )
    if (ray := sys.modules.get("ray")) is not None and ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in ("", "auto", there):
            raise ConfigError(
                f"address: {address}: this process is on the Ray cluster at {there} already, and serves one"
            )
        return Connection(there, own=False)
    address = address or os.environ.get("RAY_ADDRESS", "")
    started: Started | None = None
    if not address:
        node = here()
        started = start(node.cpus, node.gpus, node.memory)
        address = started.address
        _log.warning(
            "no Ray cluster is named: started one on this machine alone, with %g CPUs, %g GPUs and %.1f GiB",
            node.cpus,
            node.gpus,
            node.memory / 2**30,
        )
    elif address not in ("auto", "local"):
        _knock(address)
    try:
        _join(address)
    except Exception as error:
        if started is not None:
            started.end()
        raise ConfigError(f"cannot join the Ray cluster at {address}: {_line(error)}; {_HINT}") from None
    return Connection(address, own=True, started=started)


def _join(address: str) -> None:
    if address.partition(":")[0] in ("127.0.0.1", "localhost"):
        _stay_on_loopback()
    import ray

    worker: Any = sys.modules["ray._private.worker"]
    worker._worker_logs_enabled = (
        False  # Ray tells of deaths on stdout, among the tables; here they are one line on stderr
    )
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(
        address=address,
        namespace="moco",
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )


def _stay_on_loopback() -> None:
    """Have Ray take 127.0.0.1 for what it says; it replaces it by the machine's address otherwise.

    The switch is Ray's own, made for desktops whose firewalls ask about every port. It is read once, when Ray is imported.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    constants: Any = sys.modules.get("ray._private.ray_constants")
    if constants is not None:
        constants.ENABLE_RAY_CLUSTER = False


def _knock(address: str) -> None:
    """Raise ConfigError if nobody listens: Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"address: expected HOST:PORT or auto, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster at {address} ({error.strerror or error}); {_HINT}") from None


def gone(address: str) -> PoolError | None:
    """Return the error of a cluster that nobody answers for any more, None if somebody does."""
    try:
        _knock(address)
    except ConfigError:
        return PoolError(
            f"the Ray cluster at {address} is gone; what was answered is kept, run the same again once it is back"
        )
    return None


def nodes() -> list[Node]:
    """Return the living nodes of the cluster that this process is connected to."""
    import ray

    out = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        has: dict[str, float] = dict(node["Resources"])
        others = {k: v for k, v in has.items() if k not in ("CPU", "GPU", "memory", "object_store_memory")}
        out.append(
            Node(
                id=node["NodeID"],
                name=node["NodeManagerAddress"],
                cpus=has.get("CPU", 0.0),
                gpus=has.get("GPU", 0.0),
                memory=int(has.get("memory", 0)),
                others=others,
            )
        )
    return sorted(out, key=lambda n: (n.name, n.id))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
