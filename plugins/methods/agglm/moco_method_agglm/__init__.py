"""AggLM: a model that is trained by reinforcement to write the final solution from several candidate solutions."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_agglm.method import Agglm

    return Agglm
