"""Prompt routing: one model reads the question and names the model that should answer it."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_prompt_routing.method import PromptRouting

    return PromptRouting
