"""Controls of another method: it on copies of one model, as many tokens of one model, or learning from chance."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_control.method import Control

    return Control
