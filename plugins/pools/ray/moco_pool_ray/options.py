"""The options of the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from moco_core import ConfigError, Plugin, option, plugin_option

__all__ = ["Options", "Place"]


def _some(models: Sequence[str | int]) -> str | None:
    return None if models else "empty; name the models of the actor"


@attrs.frozen(kw_only=True)
class Place:
    """One actor: which models sit there, and what it takes of its node. What is not given is as for all."""

    models: tuple[str | int, ...] = option(check=_some, help="the models of the actor, by name or index")
    cpus: float | None = option(None, ge=0, help="CPUs")
    gpus: float | None = option(None, ge=0, help="GPUs; a part of one may be given")
    memory: float | None = option(None, gt=0, help="GiB of the node's memory")
    resources: Mapping[str, float] = option(
        factory=dict, gt=0, help="further resources of Ray, such as {node:10.0.0.7: 0.01}"
    )


@attrs.frozen(kw_only=True)
class Options:
    """Options of the pool on a cluster."""

    pool: Plugin = plugin_option("pool", help="the pool whose models are opened there")
    address: str = option(
        "", help="HOST:PORT of the cluster, or auto; default: $RAY_ADDRESS, else one is started on this machine"
    )
    placement: Literal["spread", "together"] | tuple[Place, ...] = option(
        "spread",
        help="spread: an actor for each base, with the adapters on it; together: one actor; or a list of actors, the models "
        "that it does not name being spread",
    )
    cpus: float = option(1.0, ge=0, help="CPUs of an actor")
    gpus: float | Literal["auto"] = option("auto", ge=0, help="GPUs of an actor; auto: 1 where its models want one")
    memory: float | Literal["auto"] = option(
        "auto",
        gt=0,
        help="GiB that an actor takes of its node's memory; auto: what its weights take, half as much and 0.5",
    )
    restarts: int = option(
        3, ge=0, help="how often an actor that dies is started again before it has answered anything"
    )

    def __attrs_post_init__(self) -> None:
        if self.pool.name == "ray":
            raise ConfigError("pool: a pool on a cluster cannot be opened on a cluster; name the pool inside of it")
