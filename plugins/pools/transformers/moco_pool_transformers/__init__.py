"""Any causal language models that transformers loads, several at once, on CPU or CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moco_core import hookimpl

if TYPE_CHECKING:
    from moco_pool_transformers.pool import TransformersPool

__all__ = ["moco_pool"]


@hookimpl
def moco_pool() -> type[TransformersPool]:
    """Register the pool."""
    from moco_pool_transformers.pool import TransformersPool

    return TransformersPool
