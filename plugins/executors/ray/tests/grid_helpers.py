"""How a grid is asked for, and what it left."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moco_core.runs.records import read_run

MODELS = Path(__file__).parent / "grid_models.py"


def environment() -> dict[str, str]:
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1"}


def arguments(name: str, address: str, pool: dict[str, Any]) -> list[str]:
    out = ["--method", "majority_vote", "-d", "skills", "-p", "grid_models", "--test", "6", "--dev", "4"]
    out += ["--plugin", str(MODELS), "-o", "seeds=[0, 1]", "--out", name, "--cache", f"{name}.sqlite"]
    for key, value in {"log": str(Path("calls.log").resolve()), **pool}.items():
        out += ["-o", f"pool.{key}={json.dumps(value)}"]
    return [*out, "-o", f"executor={{name: ray, address: '{address}'}}"] if address else out


def calls() -> list[list[Any]]:
    """Every call that was answered: process, model, input."""
    log = Path("calls.log")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def stored(name: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"{name}.sqlite")) as db:
        return sorted(db.execute("SELECT key, model, kind, input, params, seed, value FROM calls"))


def runs(name: str) -> dict[str, str]:
    return {p.name: read_run(p)["status"] for p in sorted(Path(name).iterdir()) if (p / "run.json").exists()}


def until(true: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
    return found
