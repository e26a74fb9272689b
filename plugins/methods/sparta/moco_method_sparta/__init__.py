"""Sparta alignment: models duel, the others judge, and every model is trained on what the judges preferred."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_sparta.method import Sparta

    return Sparta
