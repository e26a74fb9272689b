"""The reference study's model pools, on whichever engine is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import attrs

from moco_core import ConfigError, Model, Plugin, PoolSource, hookimpl, option, plugin_option
from moco_core.options import with_options

__all__ = ["Entry", "Options", "PaperPool", "moco_pool", "preset"]

_ENGINES: Mapping[str, str] = {"vllm": "vllm", "transformers": "transformers", "openai": "openai"}
"""Pool -> the package that it cannot do without, in the order that they are tried."""


def _usable(installed: Collection[str]) -> str:
    """Return the first engine that can run here. Raises ConfigError if there is none."""
    for name, package in _ENGINES.items():
        if name not in installed or importlib.util.find_spec(package) is None:
            continue
        if name == "vllm" and not any(Path(d).exists() for d in ("/dev/nvidiactl", "/dev/kfd")):
            continue
        return name
    raise ConfigError("no engine is installed; pip install moco-pool-transformers, moco-pool-vllm or moco-pool-openai")


@attrs.frozen(kw_only=True)
class Entry:
    """One model of a pool."""

    model: str = option(holds="path or id", help="Hub id, folder, or the id on a server")
    name: str = option("", help="name within the pool; default: the last part of the id")
    description: str = option("", help="what it is good at, for methods that choose models by description")
    license: str = option("", help="its licence, as its authors state it; for people")
    unconfirmed: str = option("", help="what about its id could not be confirmed; told if the Hub refuses it")


@attrs.frozen(kw_only=True)
class Options:
    """Options of the paper's pools."""

    preset: Literal[1, 2, "scaling", "evolution-1", "evolution-2"] = option(
        1, help="pool 1 or 2, the sixteen models of the scaling study, or a pool of the follow-up study"
    )
    first: int | None = option(
        None, ge=1, help="only the first n models of the preset; the scaling study has 2, 4, 8 and 16"
    )
    models: tuple[str | Entry, ...] = option(
        (), holds="path or id", help="other models, in order, in place of the preset's"
    )
    engine: Plugin | None = plugin_option(
        "pool",
        _usable,
        sets=("models",),
        help="the pool that runs them, with its options; auto: vllm where it and a GPU are there, else transformers, "
        "else openai",
    )

    def __attrs_post_init__(self) -> None:
        if self.models and self.first is not None:
            raise ConfigError("first: not used with models; name fewer models")
        if not self.models and self.first is not None and self.first > (have := len(preset(self.preset)["models"])):
            raise ConfigError(f"first: the preset {self.preset} has {have} models, got {self.first}")


def preset(name: int | str) -> Mapping[str, Any]:
    """Return what is recorded about a pool: its ``models`` in order and a ``note``."""
    data = json.loads(resources.files(__name__).joinpath("pools.json").read_text("utf-8"))
    found: Mapping[str, Any] = data["pools"][str(name)]
    return found


class PaperPool(PoolSource[Options]):
    """The reference study's model pools, on whichever engine is installed."""

    Options = Options

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The models of the pool, in order."""
        given = self.options.models
        if not given:
            return tuple(Entry(**m) for m in preset(self.options.preset)["models"][: self.options.first])
        return tuple(Entry(model=m) if isinstance(m, str) else m for m in given)

    @cached_property
    def source(self) -> PoolSource[Any]:
        """The engine's pool. Raises ConfigError."""
        if self.options.engine is None:
            raise ConfigError(f"engine: missing; name the pool that runs the models: {', '.join(_ENGINES)}")
        keys = ("model", "name", "description")
        models = [{k: v for k in keys if (v := getattr(e, k))} for e in self.entries]
        source: PoolSource[Any] = with_options(self.options.engine, {"models": models}, "engine").instance
        return source

    def models(self) -> Sequence[Model]:
        """Describe the models, in the study's order. Raises ConfigError, saying where the id of a model is unconfirmed."""
        try:
            return self.source.models()
        except ConfigError as error:
            raise ConfigError([self._explained(p) for p in error.problems]) from None

    def _explained(self, problem: str) -> str:
        for entry in self.entries:
            if entry.unconfirmed and entry.model in problem:
                return (
                    f"{problem} (preset {self.options.preset} of pool paper has {entry.model}, unconfirmed: "
                    f"{entry.unconfirmed}; name the right id with models)"
                )
        return problem

    def export(self, model: Model, folder: Path) -> None:
        self.source.export(model, folder)


@hookimpl
def moco_pool() -> type[PaperPool]:
    """Register the pool."""
    return PaperPool
