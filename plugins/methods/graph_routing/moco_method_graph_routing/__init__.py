"""Graph routing: a graph network on questions, models and their dev outcomes predicts who should answer."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_graph_routing.method import GraphRouting

    return GraphRouting
