"""Any pool with bad members: wrong, colluding, verbose, self-voting or prompt-injecting, drawn by seed."""

from typing import Any

from moco_core import PoolSource, hookimpl


@hookimpl
def moco_pool() -> type[PoolSource[Any]]:
    from moco_pool_unreliable.pool import UnreliablePool

    return UnreliablePool
