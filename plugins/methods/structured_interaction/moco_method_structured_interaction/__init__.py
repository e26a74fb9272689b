"""Structured interaction: models on the nodes of a fixed graph update their answers from their neighbours'."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_structured_interaction.method import StructuredInteraction

    return StructuredInteraction
