"""Bases to be planned."""

from __future__ import annotations

from typing import Any

from moco_pool_vllm.placement import Base

GIB = 2**30


def base(key: str, size: float, **fields: Any) -> Base:
    return Base(key=key, name=key, spec=None, task="generate", bytes=int(size * GIB), dtype="bfloat16", **fields)
