"""Causal language models, classifiers and LoRA adapters served by vLLM, several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moco_core import hookimpl

if TYPE_CHECKING:
    from moco_pool_vllm.pool import VLLMPool

__all__ = ["moco_pool"]


@hookimpl
def moco_pool() -> type[VLLMPool]:
    """Register the pool."""
    from moco_pool_vllm.pool import VLLMPool

    return VLLMPool
