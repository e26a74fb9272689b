"""Fitted systems as models: a method over systems and plain models, as deep as one likes."""

from typing import Any

from moco_core import PoolSource, hookimpl


@hookimpl
def moco_pool() -> type[PoolSource[Any]]:
    from moco_pool_systems.pool import SystemsPool

    return SystemsPool
