"""What ``moco doctor`` says about sandboxes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from moco_core.errors import MocoError
from moco_toolkit_sandbox.sandbox import Sandbox

__all__ = ["findings"]


def findings() -> Iterator[tuple[str, str, str]]:
    """Yield whether programs that models write can be isolated here, tried with one."""
    sandbox = Sandbox()
    try:
        asyncio.run(sandbox.check())
    except MocoError as error:
        yield "note", "sandbox", str(error)
    else:
        yield "ok", "sandbox", f"{sandbox.isolation} isolates programs"
