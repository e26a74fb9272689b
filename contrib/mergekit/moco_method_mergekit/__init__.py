"""A mergekit configuration as a method: mergekit merges models of the pool, and the merged model answers."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_mergekit.method import Mergekit

    return Mergekit
