"""The options of the pool."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import Plugin, option, plugin_option
from moco_pool_tiny.profiles import DEFAULT_POOL, PROFILES

__all__ = ["Options"]


def _unknown(names: tuple[str, ...]) -> str | None:
    unknown = [name for name in names if name not in PROFILES]
    return (
        f"expected some of {', '.join(PROFILES)}; got {', '.join(unknown) or 'none'}" if unknown or not names else None
    )


@attrs.frozen(kw_only=True)
class Options:
    """Options of the tiny pool."""

    models: tuple[str, ...] = option(
        DEFAULT_POOL,
        check=_unknown,
        help=f"which models, in order, of {', '.join(PROFILES)}; a name twice opens copies",
    )
    form: Literal["full", "adapter"] = option(
        "full", help="adapter: open models that have one as a LoRA adapter on the base; the function is the same"
    )
    device: str = option("cpu", help="cpu, cuda, cuda:N, mps or auto")
    max_batch: int = option(64, ge=1, help="requests decoded together")
    engine: Plugin | None = plugin_option(
        "pool",
        "transformers",
        sets=("models", "dtype", "device", "max_batch"),
        help="the pool that opens them, with further options of its own",
    )
