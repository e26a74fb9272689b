"""Let the models' weights move as a particle swarm towards the best dev score."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_model_swarms.method import ModelSwarms

    return ModelSwarms
