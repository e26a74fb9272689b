"""What tests of the pool look at."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def calls_in(file: Path) -> list[list[Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
