"""Running the tests' own programs: isolated where that is possible, else with limits alone, since we wrote them."""

from __future__ import annotations

import asyncio
from typing import Any

from moco_core import Metric


def isolation() -> str:
    """The isolation that works here."""
    from moco_toolkit_sandbox import Sandbox, SandboxUnavailable

    try:
        asyncio.run(Sandbox().check())
    except SandboxUnavailable:
        return "limits"
    return "bubblewrap"


def code_execution() -> Metric[Any] | None:
    """The metric that runs code; None where it is not installed."""
    try:
        from moco_metric_code_execution import CodeExecution, Options
    except ImportError:
        return None
    return CodeExecution(Options(isolation=isolation(), seconds=30))  # type: ignore[arg-type]
