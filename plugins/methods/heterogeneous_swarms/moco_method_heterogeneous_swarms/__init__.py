"""Search who reads whom, and with which weights: a graph of models found by particle swarms on dev."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_heterogeneous_swarms.method import HeterogeneousSwarms

    return HeterogeneousSwarms
