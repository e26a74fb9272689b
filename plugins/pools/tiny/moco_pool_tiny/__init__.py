"""Six very small models that come with the package: the pool with which every method runs offline on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moco_core import hookimpl

if TYPE_CHECKING:
    from moco_pool_tiny.pool import TinyPool

__all__ = ["moco_pool"]


@hookimpl
def moco_pool() -> type[TinyPool]:
    """Register the pool."""
    from moco_pool_tiny.pool import TinyPool

    return TinyPool
