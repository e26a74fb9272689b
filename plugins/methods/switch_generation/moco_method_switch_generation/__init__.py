"""Switch generation: a response is written patch by patch, a switcher names the model of each patch."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_switch_generation.method import SwitchGeneration

    return SwitchGeneration
