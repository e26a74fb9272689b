"""How a grid is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parent / "grid_models.py"


def environment() -> dict[str, str]:
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1"}


def arguments(name: str, address: str, pool: dict[str, Any]) -> list[str]:
    out = ["--method", "majority_vote", "-d", "skills", "-p", "grid_models", "--test", "6", "--dev", "4"]
    out += ["--plugin", str(MODELS), "-o", "seeds=[0, 1]", "--out", name, "--cache", f"{name}.sqlite"]
    for key, value in {"log": str(Path("calls.log").resolve()), **pool}.items():
        out += ["-o", f"pool.{key}={json.dumps(value)}"]
    return [*out, "-o", f"executor={{name: ray, address: '{address}'}}"] if address else out


def calls_in(file: Path) -> list[list[Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
