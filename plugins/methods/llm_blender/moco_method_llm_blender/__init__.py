"""LLM-Blender: rank all replies pair by pair in both orders, then fuse the best of them into one."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_llm_blender.method import LlmBlender

    return LlmBlender
