"""A cluster of several nodes on this machine, for tests: on loopback only, and gone when the test's process is, killed or not.

::

    with Nodes({"cpus": 1}, {"cpus": 1}) as cluster:
        connection = connect(cluster.address)
        cluster.remove(0)
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Nodes"]


class Nodes:
    """Nodes beside a head that runs nothing.

    Each is given as ``cpus``, ``gpus``, ``memory`` in bytes, ``resources``, and ``env`` of its own processes. ``system`` are
    settings of Ray itself, ``env`` variables of the environment of all processes of the cluster.
    """

    def __init__(self, *nodes: Mapping[str, Any], system: Mapping[str, Any] | None = None, **env: str) -> None:
        self.address = ""
        self.folder = Path()
        self._given, self._system, self._env = nodes, dict(system or {}), env
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Nodes:
        environment = {
            **os.environ,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_memory_monitor_refresh_ms": "0",  # other things may run on this machine
            **self._env,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moco_toolkit_ray.testing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )
        said = self._ask("head", system=self._system)
        self.address, self.folder = said["address"], Path(said["folder"])
        for node in self._given:
            self.add(**node)
        return self

    def add(self, **node: Any) -> int:
        """Add a node and return its number."""
        return int(self._ask("add", **node)["number"])

    def remove(self, number: int) -> None:
        """Kill a node with all that runs there."""
        self._ask("remove", number=number)

    def end(self) -> None:
        """Kill the whole cluster, head first, as a power cut would."""
        self._ask("kill")

    def _ask(self, what: str, **given: Any) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, given]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('{"done"'):
                answer: dict[str, Any] = json.loads(line)["done"]
                return answer
        raise RuntimeError(f"the cluster's process ended at {what!r}")

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
                self._process.communicate(timeout=30)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()


def _main() -> None:
    import shutil
    import tempfile

    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="moco-ray-", dir="/tmp")
    common: dict[str, Any] = {
        "node_ip_address": "127.0.0.1",
        "include_log_monitor": False,
        "object_store_memory": 80 << 20,
    }
    cluster, nodes = Cluster(), list[Any]()
    for line in sys.stdin:
        what, given = json.loads(line)
        answer: dict[str, Any] = {}
        if what == "head":
            head: dict[str, Any] = {
                **common,
                "num_cpus": 0,
                "no_monitor": True,
                "include_dashboard": False,
                "temp_dir": folder,
            }
            if given["system"]:
                head["_system_config"] = given["system"]
            node = cluster.add_node(**head)
            answer = {"address": cluster.address, "folder": folder}
        elif what == "add":
            own: dict[str, Any] = {
                "num_cpus": given.get("cpus", 0),
                "num_gpus": given.get("gpus", 0),
                "resources": given.get("resources"),
            }
            if "memory" in given:
                own["memory"] = given["memory"]
            if "env" in given:
                own["env_vars"] = given["env"]
            nodes.append(cluster.add_node(**common, **own))
            answer = {"number": len(nodes) - 1}
        elif what == "remove":
            cluster.remove_node(nodes[given["number"]], allow_graceful=False)
        else:
            for node in [cluster.head_node, *nodes]:
                node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            print(json.dumps({"done": answer}), flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
        print(json.dumps({"done": answer}), flush=True)
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()
