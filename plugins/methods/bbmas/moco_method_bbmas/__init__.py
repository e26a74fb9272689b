"""Blackboard discussion: models write on one shared board, chosen by its content, until enough of them conclude."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_bbmas.method import Bbmas

    return Bbmas
