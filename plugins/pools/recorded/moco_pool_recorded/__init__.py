"""Models whose replies come from a table: earlier runs, LLMRouterBench, RouterBench, or one's own."""

from typing import Any

from moco_core import PoolSource, hookimpl


@hookimpl
def moco_pool() -> type[PoolSource[Any]]:
    from moco_pool_recorded.pool import RecordedPool

    return RecordedPool
