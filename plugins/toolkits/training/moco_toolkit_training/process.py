"""A training in a process of its own, seen from the run: started with its device, heard, answered, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.errors import (
    CapabilityError,
    ConfigError,
    EngineOutOfMemory,
    MocoError,
    ModelCallError,
    PromptTooLong,
    StoreError,
)
from moco_core.training import TrainingSite
from moco_toolkit_training.fitting import Fit

__all__ = ["run"]

_KINDS: Mapping[str, type[MocoError]] = {
    cls.__name__: cls for cls in (CapabilityError, ConfigError, ModelCallError, PromptTooLong, StoreError)
}
_LOOK = 0.2  # seconds between two looks at whether the run is being stopped
_GRACE = 2.0  # seconds until a process that nobody listens to any more is killed
_LOG = "log.txt"

WORKER: Sequence[str] = (sys.executable, "-m", "moco_toolkit_training.worker")


def run(service: str, job: Any, fitted: Fit, site: TrainingSite, worker: Sequence[str] = WORKER) -> Mapping[str, Any]:
    """Train in a new process, to which ``job`` is sent, and return the figures. Blocks.

    Out of memory, the next process computes half as many rows at once and goes on from the last checkpoint. Raises
    EngineOutOfMemory if one row does not fit, ModelCallError with the end of the log if the process dies, and what the
    training raises.
    """
    most, halved = fitted.most, 0
    while True:
        said = _once(job, site, worker, {"most": most, "checkpointing": fitted.checkpointing})
        if "figures" in said:
            figures: dict[str, Any] = {**said["figures"], "memory_predicted": fitted.memory}
            return {**figures, "halved": halved} if halved else figures
        name, line = site.info.get("name", "model"), str(said["error"])
        if said["kind"] == "memory" and most > 1:
            most, halved = max(1, most // 2), halved + 1
            continue
        if said["kind"] == "memory":
            raise EngineOutOfMemory(
                f"{name}: {service}: one row at a time does not fit into the memory of {site.device}; lower max_length, "
                "train an adapter (lora), or use a smaller model"
            )
        raise _KINDS.get(said["kind"], ModelCallError)(line if said["kind"] else f"{name}: {service} failed: {line}")


def _once(job: Any, site: TrainingSite, worker: Sequence[str], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Run one process to its end and return its last message."""
    site.folder.mkdir(parents=True, exist_ok=True)
    device = "cuda:0" if site.device.startswith("cuda") else site.device
    given = {f.name: getattr(site, f.name) for f in attrs.fields(TrainingSite) if f.name not in _LIVE}
    with (site.folder / _LOG).open("ab") as log:
        process = subprocess.Popen(
            list(worker), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_environment(site)
        )
    lines: queue.Queue[bytes | None] = queue.Queue()
    assert process.stdin is not None and process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    said: Mapping[str, Any] = {}
    try:
        process.stdin.write(pickle.dumps((job, {**given, "device": device}, dict(settings))))
        process.stdin.flush()
        while True:
            if site.cancelled():
                raise ModelCallError(f"{site.info.get('name', 'model')}: the run was stopped while it was trained")
            try:
                line = lines.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if line is None:
                break
            said = json.loads(line)
            if "tell" in said:
                site.tell(said["tell"])
            elif "reward" in said:
                rewards = list(site.reward([(int(row), str(text)) for row, text in said["reward"]]))
                process.stdin.write(json.dumps(rewards).encode() + b"\n")
                process.stdin.flush()
            else:
                return said
    except BrokenPipeError:
        pass  # it died: its log says why
    finally:
        _end(process, reader)
    return {"error": f"its process ended: {_last_line(site.folder / _LOG)} (log: {site.folder / _LOG})", "kind": ""}


_LIVE = ("tell", "reward", "cancelled")
_OPENMP = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def _environment(site: TrainingSite) -> dict[str, str]:
    """Return the environment: the device is chosen before any library looks for one, and nobody reports anywhere."""
    out = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
    if site.device.startswith("cuda"):
        number = int(site.device.partition(":")[2] or 0)
        seen = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
        out["CUDA_VISIBLE_DEVICES"] = seen[number] if seen else str(number)
    else:
        out["CUDA_VISIBLE_DEVICES"] = ""
    if not any(out.get(name) for name in _OPENMP):
        out["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin between two small kernels starve whoever else computes
    if site.threads is not None:
        out["OMP_NUM_THREADS"] = str(site.threads)
    return out


def _read(source: Any, lines: queue.Queue[bytes | None]) -> None:
    for line in source:
        lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[bytes], reader: threading.Thread) -> None:
    """End a process that may still be going; one that has said everything leaves by itself as its input is closed."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    try:
        process.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    reader.join()
    if process.stdout is not None:
        process.stdout.close()


def _last_line(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it said nothing"
