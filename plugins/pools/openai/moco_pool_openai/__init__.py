"""Models behind any OpenAI-compatible server: hosted services, vLLM, SGLang, llama.cpp, Ollama."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moco_core import hookimpl

if TYPE_CHECKING:
    from moco_pool_openai.pool import OpenAIPool

__all__ = ["moco_pool"]


@hookimpl
def moco_pool() -> type[OpenAIPool]:
    """Register the pool."""
    from moco_pool_openai.pool import OpenAIPool

    return OpenAIPool
