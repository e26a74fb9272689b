"""Which model runs where, with how much memory, and which have to take turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from moco_core.errors import ConfigError
from moco_toolkit_checkpoints.devices import devices
from moco_toolkit_checkpoints.specs import Spec

__all__ = ["Base", "Placement", "gpus", "plan"]

_OVERHEAD = 1.15
"""Weights, activations and buffers against weights alone."""


@attrs.frozen(kw_only=True)
class Base:
    """One vLLM engine to run: a base checkpoint for one task, with its adapters (folder -> rank).

    ``bytes`` are those of its weights.
    """

    key: str
    name: str
    spec: Spec
    task: str
    bytes: int
    dtype: str
    devices: tuple[int, ...] = ()
    share: float | None = None
    tensor_parallel: int = 1
    adapters: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Placement:
    """Where an engine runs. ``share`` is the share of each device's memory; ``sliced`` marks engines that share a group by
    time-slicing, one at a time, since they do not fit together.
    """

    device_group: str
    devices: tuple[int, ...] = ()
    share: float = 0.0
    sliced: bool = False

    def __str__(self) -> str:
        if not self.devices:
            return self.device_group
        return f"{self.device_group}, {self.share:.0%}".replace("%", " %") + (", in turns" if self.sliced else "")


def gpus() -> list[int]:
    """Return the memory of each CUDA device in bytes; empty without one."""
    if not any(d.startswith("cuda") for d in devices()):
        return []
    import torch

    return [int(torch.cuda.get_device_properties(i).total_memory) for i in range(torch.cuda.device_count())]


def plan(
    bases: Sequence[Base],
    limit: float,
    cache: int,
    *,
    memory: Sequence[int] | None = None,
    beside: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Placement]:
    """Return a place per engine.

    Largest first, each engine goes to the device (or devices, for tensor parallelism) with the most room. Engines of one
    device stay resident together if their weights and a cache of ``cache`` bytes each fit within ``limit`` of its memory;
    what is left is divided among them in proportion to their needs. Otherwise they take turns on it, each with all of it.
    ``memory`` is that of the devices (asked if None), ``beside`` what other pools need of it. Raises ConfigError if an engine
    cannot fit at all.
    """
    sizes = list(gpus() if memory is None else memory)
    if not sizes:
        wrong = next((b for b in bases if b.devices), None)
        if wrong is not None:
            raise ConfigError(
                f"pool vllm: {wrong.name}: devices {list(wrong.devices)} asked for, but there is no GPU here"
            )
        return {b.key: Placement(device_group="cpu") for b in bases}
    groups: dict[tuple[int, ...], list[Base]] = {}
    taken = [beside.get(f"cuda:{i}", 0) * _OVERHEAD for i in range(len(sizes))]
    load = list(taken)
    for base in sorted(bases, key=lambda b: (not b.devices, -b.bytes, b.key)):
        roomiest = sorted(range(len(sizes)), key=lambda i: (load[i] - sizes[i], i))
        where = base.devices or tuple(sorted(roomiest[: base.tensor_parallel]))
        if any(i >= len(sizes) for i in where) or len(where) < base.tensor_parallel:
            raise ConfigError(
                f"pool vllm: {base.name}: needs {base.tensor_parallel} GPUs (devices {list(where)}), there are {len(sizes)}"
            )
        groups.setdefault(where, []).append(base)
        for i in where:
            load[i] += _need(base, cache) / len(where)
    _disjoint(groups)
    out: dict[str, Placement] = {}
    for where, members in groups.items():
        left = limit - max(taken[i] / sizes[i] for i in where)
        out |= _share(where, members, min(sizes[i] for i in where), left, cache)
    return out


def _need(base: Base, cache: int) -> float:
    return base.bytes * _OVERHEAD + cache


def _disjoint(groups: Mapping[tuple[int, ...], Sequence[Base]]) -> None:
    """Groups that overlap in part cannot be planned: whose turn would it be?"""
    seen: dict[int, tuple[int, ...]] = {}
    for where, members in groups.items():
        for device in where:
            other = seen.setdefault(device, where)
            if other != where:
                raise ConfigError(
                    f"pool vllm: {members[0].name}: its GPUs {list(where)} overlap with {list(other)} of "
                    f"{groups[other][0].name}; give both the same devices, or separate ones"
                )


def _share(
    where: tuple[int, ...], members: Sequence[Base], size: int, limit: float, cache: int
) -> dict[str, Placement]:
    here = "cuda:" + "+".join(map(str, where))
    needs = {b.key: _need(b, cache) / len(where) / size for b in members}
    for base in members:
        allowed = base.share if base.share is not None else limit
        if needs[base.key] > allowed:
            raise ConfigError(
                f"pool vllm: {base.name} needs about {needs[base.key] * size / 2**30:.1f} GiB on each of {here}, which is more "
                f"than {allowed:.3g} of its {size / 2**30:.1f} GiB; raise gpu_share, lower kv_cache, or spread it over more "
                "GPUs (tensor_parallel)"
            )
    fixed = sum(b.share for b in members if b.share is not None)
    free = [b for b in members if b.share is None]
    if fixed > 1.0:
        raise ConfigError(
            f"pool vllm: the gpu_share of the models on {here} add up to {fixed:g}; lower them to 1 or less"
        )
    wanted = sum(needs[b.key] for b in free)
    if fixed + wanted <= max(limit, fixed):
        spare = (limit - fixed) / wanted if wanted else 1.0
        return {
            b.key: Placement(device_group=here, devices=where, share=round(b.share or needs[b.key] * spare, 4)) for b in members
        }
    return {b.key: Placement(device_group=here, devices=where, share=b.share or limit, sliced=True) for b in members}
