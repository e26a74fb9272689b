"""The pool plugin: another pool's models, each with a seat on a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from moco_core import ConfigError, Model, Plugin, PoolSource
from moco_core.options import plugins_in
from moco_core.secrets import Secret
from moco_pool_ray.engine import RayEngine, engine_for
from moco_pool_ray.fleet import Fleet
from moco_pool_ray.host import Spec
from moco_pool_ray.options import Options, Place
from moco_pool_ray.placing import Seat, place, seats_of
from moco_toolkit_ray import Node, here, nodes

__all__ = ["Options", "Place", "RayPool"]


class RayPool(PoolSource[Options]):
    """Another pool's models on the machines of a Ray cluster, an actor for each base."""

    Options = Options

    def models(self) -> Sequence[Model]:
        """Describe the inner pool's models, each on the engine of its actor.

        A cluster that is named is asked for its nodes. Raises ConfigError if there is none, or if an actor has no room there.
        """
        return self._models

    @cached_property
    def _models(self) -> tuple[Model, ...]:
        options = self.options
        if keys := [name for plugin in _plugins(options.pool) for name in _keys(plugin.options)]:
            raise ConfigError(
                f"pool: {keys[0]} is not sent to other machines; give its key by an environment variable of the nodes"
            )
        inner = tuple(options.pool.instance.models())
        seats = seats_of(inner, options)
        fleet = Fleet(
            options.address,
            seats,
            [_spec(options.pool, seat, inner) for seat in seats],
            spread=options.placement != "together",
            restarts=options.restarts,
        )
        found = place(seats, self._nodes(fleet))
        at = {name: seat for seat in seats for name in seat.models}
        engines: dict[tuple[int, int], RayEngine] = {}
        out = []
        for model in inner:
            number = at[model.name].number
            key = (number, id(model.engine))
            if key not in engines:
                engines[key] = engine_for(fleet, number, model.engine, found[number].name)
            out.append(engines[key].seat(model))
        return tuple(out)

    def _nodes(self, fleet: Fleet) -> list[Node]:
        ray = sys.modules.get("ray")
        if not (self.options.address or os.environ.get("RAY_ADDRESS") or (ray is not None and ray.is_initialized())):
            return [here()]
        fleet.connect()
        return nodes()

    def export(self, model: Model, folder: Path) -> None:
        """Write a (derived) model to disk, by the inner pool, here."""
        self.options.pool.instance.export(model.info["inner"], folder)


def _spec(pool: Plugin, seat: Seat, models: Sequence[Model]) -> Spec:
    files = {
        str(Path(file).resolve())
        for plugin in _plugins(pool)
        if (file := getattr(sys.modules.get(plugin.cls.__module__), "__file__", None))
        and plugin.cls.__module__.startswith("moco_local_")  # given as --plugin
    }
    return Spec(
        section=pool.plain(),
        models={m.name: m.fingerprint for m in models if m.name in seat.models},
        files=sorted(files),
        folder=os.getcwd(),
    )


def _plugins(plugin: Plugin) -> Iterator[Plugin]:
    """Yield a pool and those inside of it."""
    yield plugin
    for kind in ("pool", "method", "dataset", "metric"):
        for inner in plugins_in(plugin.options, kind):
            yield from _plugins(inner)


def _keys(options: Any) -> Iterator[str]:
    """Yield the names of the keys that stand in options as they are."""
    if attrs.has(type(options)):
        for field in attrs.fields(type(options)):
            value = getattr(options, field.name)
            if isinstance(value, Secret) and value:
                yield field.name
            elif not isinstance(value, Plugin):
                yield from _keys(value)
    elif isinstance(options, (list, tuple)):
        for value in options:
            yield from _keys(value)
