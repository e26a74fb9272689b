"""Checks of executors. What a grid comes to needs an executor's own machines: its own tests have to see to that."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import attrs

from moco_core import Executor
from moco_toolkit_authoring.suite import Case, Check, check, require
from moco_toolkit_authoring.traces import empty_folder

__all__ = ["CHECKS", "ExecutorCase", "ExecutorPlan"]


@attrs.frozen(kw_only=True)
class ExecutorPlan:
    """What the checks of executors work with: nothing beyond the plugin and its settings."""


class ExecutorCase(Case):
    """One executor with one setting."""


@check(after=["entry_point_resolves"])
def map_yields_as_runs_end(case: ExecutorCase) -> None:
    """It is an Executor whose map() gives an asynchronous iterator, and nothing is started before that is asked."""

    async def ask(job: Any) -> Any:
        raise AssertionError("map() does a run before it is asked for one")

    async def look() -> None:
        with empty_folder() as folder:
            found = case.make().map([], ask)
            if inspect.iscoroutine(found):
                found.close()
            require(hasattr(found, "__anext__"), f"map() returns {type(found).__name__}; write `async def` with `yield`")
            if hasattr(found, "aclose"):
                await found.aclose()
            require(not list(folder.iterdir()), "map() writes files before it is asked for a run")

    require(issubclass(case.cls, Executor), f"{case.cls.__name__} is no moco_core.Executor")
    asyncio.run(look())


CHECKS: tuple[Check, ...] = (map_yields_as_runs_end,)
