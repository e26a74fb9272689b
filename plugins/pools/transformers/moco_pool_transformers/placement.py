"""Which model runs on which device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from moco_core.errors import ConfigError
from moco_pool_transformers.options import Entry, Options
from moco_toolkit_checkpoints.describe import Described
from moco_toolkit_checkpoints.devices import devices

__all__ = ["SHARE", "Held", "Room", "missing", "place", "replicate", "rooms", "spread"]

SHARE = 0.85
"""Share of a device's free memory that weights may take; the rest is for caches and activations."""

_BESIDE = 0.6
"""Share of that up to which a device that holds other models takes replicas, if nobody asked for a number of them."""


@attrs.frozen(kw_only=True)
class Room:
    """What a device offers: bytes of weights, and what ``kind`` it is; devices of one kind compute alike."""

    bytes: int
    kind: str = ""


def rooms(names: Sequence[str], memory: float | None) -> dict[str, Room]:
    """Return the room on each device; ``memory`` is the pool's option, GiB per device."""
    import torch

    out = {}
    for name in names:
        cuda = name.startswith("cuda")
        kind = torch.cuda.get_device_name(name) if cuda else name
        free = int(SHARE * torch.cuda.mem_get_info(name)[0]) if cuda else 0
        out[name] = Room(bytes=free if memory is None else int(memory * 2**30), kind=kind)
    return out


def missing(device: str) -> str | None:
    """Return what is wrong with an option ``device`` on this machine, or None."""
    kind, _, number = device.partition(":")
    if device in ("", "auto", "cpu"):
        return None
    if kind not in ("cuda", "mps") or not (number.isdecimal() or device == kind):
        return f"expected cpu, cuda, cuda:N, mps or auto, got {device!r}"
    found = devices()
    if (f"{kind}:{number or 0}" if kind == "cuda" else kind) in found:
        return None
    return f"{device!r} is not on this machine; it has {', '.join(found)}"


def spread(
    models: Sequence[tuple[str, str, int]],
    wanted: Sequence[str],
    available: Sequence[str],
    beside: Mapping[str, int] = MappingProxyType({}),
) -> list[str]:
    """Return a device per model.

    ``models`` are (base, fingerprint, bytes), ``beside`` the bytes that other pools need per device. Models with a wanted
    device keep it. Of the others the largest goes first, to the device with the fewest bytes so far; an adapter goes where its
    base is; a copy of a model goes to a device that has none of it yet (a replica, so that both work at once), and shares
    memory with the first where every device has one.
    """
    out = list(wanted)
    if "cuda" in out:
        first = next((d for d in available if d.startswith("cuda")), "cuda:0")
        out = [first if d == "cuda" else d for d in out]
    there = list(available) or ["cpu"]
    load: dict[str, int] = {d: beside.get(d, 0) for d in there}
    homes: dict[str, list[str]] = {}  # base -> devices that hold it
    seen: dict[tuple[str, str], int] = {}  # (fingerprint, device) -> copies there
    order = sorted(range(len(models)), key=lambda i: (out[i] == "", -models[i][2], i))
    for i in order:
        base, fingerprint, size = models[i]
        device = out[i]
        if not device:
            held = homes.get(base, [])
            fresh = [d for d in there if d not in held]
            copied = any((fingerprint, d) in seen for d in held)
            if held and not (copied and fresh):
                device = min(held, key=lambda d: (seen.get((fingerprint, d), 0), load.get(d, 0)))
            else:
                device = min(fresh or there, key=lambda d: (load[d], there.index(d)))
            out[i] = device
        if device not in homes.setdefault(base, []):
            homes[base].append(device)
            load[device] = load.get(device, 0) + size
        seen[fingerprint, device] = seen.get((fingerprint, device), 0) + 1
    return out


@attrs.frozen(kw_only=True)
class Held:
    """What one model holds on its device: its base and, if it is one, its adapter. ``label`` names it in messages.

    ``replicas`` is on how many devices it should be; None: as there is room.
    """

    label: str
    base: str
    bytes: int
    adapter: str = ""
    adapter_bytes: int = 0
    replicas: int | None = None


def replicate(
    models: Sequence[Held], homes: Sequence[str], rooms: Mapping[str, Room]
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the further devices of each model, and what is impossible, one sentence each.

    A base and its adapters are replicated together, onto devices of the kind of their home. First what was asked for, largest
    first; then, if every model has its place, one replica after the other of the model that has the fewest, on the device
    with the least on it, as long as a device is empty or stays filled by 60 % at most. Models that are listed several times
    have their copies already and get no replicas unless asked for. Nowhere do the weights exceed a device's room.
    """
    homes_of: dict[str, set[str]] = {}
    parts: dict[tuple[str, str], dict[str, int]] = {}  # (base, device) -> bytes of what is loaded there, by content
    for held, home in zip(models, homes, strict=True):
        homes_of.setdefault(held.base, set()).add(home)
        parts.setdefault((held.base, home), {})[""] = held.bytes
        if held.adapter:
            parts[held.base, home][held.adapter] = held.adapter_bytes
    load = {d: sum(sum(p.values()) for (_, at), p in parts.items() if at == d) for d in rooms}
    crowded = any(load[d] > rooms[d].bytes for d in load)  # models take turns: there is no room left
    need: dict[str, int] = {}
    for (base, _), content in parts.items():
        need[base] = max(need.get(base, 0), sum(content.values()))
    got: dict[str, list[str]] = {base: [] for base in need}

    def best(base: str, beside: float) -> str | None:
        kinds = {rooms[h].kind for h in homes_of[base] if h in rooms}
        fitting = [
            d
            for d, room in rooms.items()
            if room.kind in kinds
            and d not in homes_of[base]
            and d not in got[base]
            and load[d] + need[base] <= room.bytes * (beside if load[d] else 1.0)
        ]
        return min(fitting, key=lambda d: load[d], default=None)

    def put(base: str, beside: float) -> bool:
        device = best(base, beside)
        if device is None:
            return False
        got[base].append(device)
        load[device] += need[base]
        return True

    problems = []
    for held in sorted(models, key=lambda h: -h.bytes):
        while held.replicas is not None and len(got[held.base]) < held.replicas - 1:
            if not put(held.base, 1.0):
                problems.append(
                    f"{held.label}: {held.replicas} replicas of {need[held.base] / 2**30:.1f} GiB do not fit, "
                    f"{len(got[held.base]) + 1} would on {', '.join(rooms) or 'the one device'} (alike, with room for it)"
                )
                break
    order = [h.base for h in models if h.replicas is None and len(homes_of[h.base]) == 1 and not crowded]
    waiting = sorted(dict.fromkeys(order), key=lambda b: -need[b])
    while waiting:
        base = min(waiting, key=lambda b: len(got[b]))
        if not put(base, _BESIDE):
            waiting.remove(base)
    return [tuple(got[h.base][: None if h.replicas is None else h.replicas - 1]) for h in models], problems


def place(
    found: Sequence[Described],
    entries: Sequence[Entry],
    names: Sequence[str],
    options: Options,
    beside: Mapping[str, int] = MappingProxyType({}),
) -> list[tuple[str, ...]]:
    """Return the devices of each model, its home first: given ones are kept, the others are spread over what there is by size,
    and models get replicas where room is left. Raises ConfigError for numbers of replicas that cannot be.
    """
    wanted = [e.device or ("" if options.device == "auto" else options.device) for e in entries]
    available = devices() if "" in wanted or "cuda" in wanted else []
    homes = spread([(d.spec.base_key[0], d.fingerprint, d.memory) for d in found], wanted, available, beside)
    pool = None if options.replicas == "auto" else options.replicas
    held = [
        Held(
            label=f"model {name!r}",
            base=d.spec.base_key[0],
            bytes=d.spec.base_bytes,
            adapter=d.spec.adapter_key,
            adapter_bytes=d.memory - d.spec.base_bytes,
            # where a device was named there is one
            replicas=e.replicas or (1 if e.device or (device and pool is None) else pool),
        )
        for d, e, name, device in zip(found, entries, names, wanted, strict=True)
    ]
    if all(h.replicas == 1 for h in held) or (len(available) < 2 and not any(h.replicas for h in held)):
        return [(home,) for home in homes]
    for h, device in zip(held, wanted, strict=True):
        if device and h.replicas not in (None, 1):
            raise ConfigError(
                f"{h.label}: replicas: {h.replicas}, but device: {device} names one; leave one of them out"
            )
    if len(available) < 2:
        h = next(h for h in held if h.replicas not in (None, 1))
        there = ", ".join(available) or "no other device"
        raise ConfigError(f"{h.label}: replicas: {h.replicas}, but this machine has {there} alone; set replicas: auto")
    left = {
        d: attrs.evolve(room, bytes=max(room.bytes - beside.get(d, 0), 0))
        for d, room in rooms(available, options.memory).items()
    }
    more, problems = replicate(held, homes, left)
    if problems:
        raise ConfigError(problems)
    return [(home, *further) for home, further in zip(homes, more, strict=True)]
