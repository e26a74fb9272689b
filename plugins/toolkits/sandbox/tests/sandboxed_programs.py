"""Programs run in a sandbox, and why none isolates here."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from moco_toolkit_sandbox import Limits, Outcome, Sandbox, SandboxUnavailable


def _why_not() -> str:
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    try:
        asyncio.run(Sandbox().check())
    except SandboxUnavailable as error:
        return str(error)
    return ""


WHY_NOT = _why_not()
isolated = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "isolated")

QUICK = Limits(seconds=20, memory=512 << 20)


def run(program: str, limits: Limits = QUICK, isolation: str = "bubblewrap") -> Outcome:
    return asyncio.run(Sandbox(isolation).run(program, limits))  # type: ignore[arg-type]
