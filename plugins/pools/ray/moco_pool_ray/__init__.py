"""Another pool's models on the machines of a Ray cluster, an actor for each base."""

from typing import Any

from moco_core import PoolSource, hookimpl


@hookimpl
def moco_pool() -> type[PoolSource[Any]]:
    from moco_pool_ray.pool import RayPool

    return RayPool
