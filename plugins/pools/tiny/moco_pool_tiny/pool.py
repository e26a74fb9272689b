"""The pool plugin: which of the shipped models to open, and in which form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import attrs

from moco_core.models import Model, PoolSource
from moco_core.options import option
from moco_pool_tiny.profiles import DEFAULT_POOL, PROFILES
from moco_pool_transformers.pool import Entry, TransformersPool
from moco_pool_transformers.pool import Options as EngineOptions

__all__ = ["WEIGHTS", "Options", "TinyPool"]

WEIGHTS = Path(__file__).parent / "weights"


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


class TinyPool(PoolSource[Options]):
    """Six models of under a million parameters: a base, three specialists, a generalist, and one of another family."""

    Options = Options

    @cached_property
    def _pool(self) -> TransformersPool:
        options = self.options
        return TransformersPool(
            EngineOptions(
                models=tuple(self._entry(name) for name in options.models),
                dtype="float32",
                device=options.device,
                max_batch=options.max_batch,
            )
        )

    def _entry(self, name: str) -> Entry:
        adapter = WEIGHTS / f"{name}-lora"
        split = self.options.form == "adapter" and adapter.is_dir()
        # Copies are told apart by numbers, which the engine gives to models without a name of their own.
        once = self.options.models.count(name) == 1
        return Entry(
            model=str(WEIGHTS / ("base" if split else name)),
            adapter=str(adapter) if split else "",
            name=name if once else "",
            description=PROFILES[name].description,
        )

    def models(self) -> Sequence[Model]:
        """Describe the models in order, without reading weights."""
        return self._pool.models()

    def export(self, model: Model, folder: Path) -> None:
        """Write a (derived) model as an ordinary checkpoint."""
        self._pool.export(model, folder)
