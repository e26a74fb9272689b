"""A cluster of this machine alone, kept by a process of its own that ends it when this one ends, killed or not."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from moco_core.errors import ConfigError

__all__ = ["Started", "admission", "start"]

_PATIENCE = 180.0  # seconds for Ray to start; a busy machine takes its time
_GRACE = 20.0  # seconds for it to end
_OBJECTS = 256 << 20  # bytes of Ray's object store: calls are small


class Started:
    """A running local cluster."""

    def __init__(self, process: subprocess.Popen[str], address: str, folder: Path) -> None:
        self.address = address
        self._process = process
        self._folder = folder

    def end(self) -> None:
        """End it and remove its files."""
        with contextlib.suppress(OSError, ValueError):
            self._process.communicate("", timeout=_GRACE)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def admission() -> dict[str, str]:
    """Return what the processes of a local cluster, and who joins it, have in their environment: a token, so that no other user
    of the machine gets in. Ray itself would leave it in a file that everybody may read.
    """
    token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def start(cpus: float, gpus: float, memory: int) -> Started:
    """Start a cluster of one node on the loopback interface, without a dashboard. Raises ConfigError if it does not come up."""
    # sockets lie in it, whose paths may have 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="moco-ray-", dir="/tmp" if os.path.isdir("/tmp") else None))
    given = {"cpus": int(cpus), "gpus": int(gpus), "memory": memory, "objects": _OBJECTS, "folder": str(folder)}
    os.environ.update(admission())
    environment = {
        **os.environ,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    with (folder / "start.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moco_toolkit_ray.keeper", json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the run, which ends the cluster in its own time
        )
    assert process.stdout is not None
    timer = threading.Timer(_PATIENCE, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            if line.startswith('{"address"'):
                return Started(process, json.loads(line)["address"], folder)
    except BaseException:
        process.kill()
        raise
    finally:
        timer.cancel()
    process.wait()
    said = (folder / "start.log").read_text(encoding="utf-8").split("\n")
    last = next((line for line in reversed(said) if line.strip()), "it said nothing")
    shutil.rmtree(folder, ignore_errors=True)
    raise ConfigError(f"Ray did not start on this machine: {last.strip()[:300]}")
