"""Trained router: learn from dev which model should answer a question, and ask only that one."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_trained_router.method import TrainedRouter

    return TrainedRouter
