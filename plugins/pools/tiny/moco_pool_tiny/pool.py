"""The pool plugin: which of the shipped models to open, and in which form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from moco_core import Model, PoolSource
from moco_core.catalogue import installed
from moco_core.options import build, with_options
from moco_pool_tiny.options import Options
from moco_pool_tiny.profiles import PROFILES

__all__ = ["WEIGHTS", "Options", "TinyPool"]

WEIGHTS = Path(__file__).parent / "weights"


class TinyPool(PoolSource[Options]):
    """Six models of under a million parameters: a base, three specialists, a generalist, and one of another family."""

    Options = Options

    @cached_property
    def _pool(self) -> PoolSource[Any]:
        options = self.options
        # options that were made by hand come from no catalogue
        engine = options.engine or build(Options, {}, plugins=installed()).engine
        assert engine is not None
        own = {
            "models": [self._entry(name) for name in options.models],
            "dtype": "float32",
            "device": options.device,
            "max_batch": options.max_batch,
        }
        source: PoolSource[Any] = with_options(engine, own, "engine").instance
        return source

    def _entry(self, name: str) -> dict[str, str]:
        adapter = WEIGHTS / f"{name}-lora"
        split = self.options.form == "adapter" and adapter.is_dir()
        # Copies are told apart by numbers, which the engine gives to models without a name of their own.
        once = self.options.models.count(name) == 1
        return {
            "model": str(WEIGHTS / ("base" if split else name)),
            "adapter": str(adapter) if split else "",
            "name": name if once else "",
            "description": PROFILES[name].description,
        }

    def models(self) -> Sequence[Model]:
        """Describe the models in order, without reading weights."""
        return self._pool.models()

    def export(self, model: Model, folder: Path) -> None:
        """Write a (derived) model as an ordinary checkpoint."""
        self._pool.export(model, folder)
