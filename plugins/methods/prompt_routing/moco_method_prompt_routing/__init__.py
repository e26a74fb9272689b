"""Prompt routing: one model reads the question and names the model that should answer it."""

from moco_core import hookimpl
from moco_method_prompt_routing.method import PromptRouting, PromptRoutingOptions, PromptRoutingSystem

__all__ = ["PromptRouting", "PromptRoutingOptions", "PromptRoutingSystem"]


@hookimpl
def moco_method() -> type[PromptRouting]:
    return PromptRouting
