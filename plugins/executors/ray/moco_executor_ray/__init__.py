"""The runs of a grid side by side on the machines of a Ray cluster, on one call cache."""

from typing import Any

from moco_core import Executor, hookimpl


@hookimpl
def moco_executor() -> type[Executor[Any]]:
    from moco_executor_ray.executor import RayExecutor

    return RayExecutor
