"""Cascade: ask models from weak to strong and stop at the first confident reply."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_cascade.method import Cascade

    return Cascade
