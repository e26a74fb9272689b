"""Find one weight per LoRA adapter on a handful of examples, without gradients."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_lorahub.method import LoraHub

    return LoraHub
