"""Thin out each model's task vector, elect a sign per parameter, and add back what agrees."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_dare_ties.method import DareTies

    return DareTies
