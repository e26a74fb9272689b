"""Which models share an actor, what each actor needs, and whether the nodes of a cluster have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from moco_core import ConfigError, Model, Pool
from moco_pool_ray.options import Options, Place
from moco_toolkit_ray import Node

__all__ = ["Seat", "needs_of", "place", "seats_of"]

_PROCESS = 1 << 29
"""Bytes that an actor takes without any weights: Python and the libraries of an engine."""

_ROOM = 1.5
"""Times the weights: while they are read, and for what is computed beside them."""


@attrs.frozen(kw_only=True)
class Seat:
    """One actor: its models by name, and what it takes of its node. ``memory`` is in bytes."""

    number: int
    models: tuple[str, ...]
    cpus: float
    gpus: float
    memory: int
    others: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def needs(self) -> dict[str, float]:
        return needs_of(self)

    @property
    def bundle(self) -> dict[str, float]:
        """What it reserves, in the terms of a placement group."""
        body = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory), **self.others}
        return {name: value for name, value in body.items() if value}


def needs_of(seat: Seat) -> dict[str, float]:
    """Return what an actor needs as plans and messages show it."""
    body = {"cpus": seat.cpus, "gpus": seat.gpus, "memory_gib": round(seat.memory / 2**30, 2), **seat.others}
    return {name: value for name, value in body.items() if value}


def seats_of(models: Sequence[Model], options: Options) -> list[Seat]:
    """Group the models of the inner pool into actors, in the order of their first models.

    Raises ConfigError if a placement names a model twice, or one that there is not.
    """
    pool = Pool(models)
    places: list[Place] = [] if isinstance(options.placement, str) else list(options.placement)
    groups: list[tuple[list[Model], Place | None]] = []
    taken: dict[str, int] = {}
    problems: list[str] = []
    for i, given in enumerate(places):
        group = []
        for name in given.models:
            try:
                model = pool.named(name, f"placement[{i}].models")
            except ConfigError as error:
                problems += error.problems
                continue
            if model.name in taken:
                problems.append(f"placement[{i}].models: {model.name!r} sits on actor {taken[model.name]} already")
                continue
            taken[model.name] = i
            group.append(model)
        groups.append((group, given))
    if problems:
        raise ConfigError(problems)
    rest: dict[str, list[Model]] = {}
    for model in models:
        if model.name not in taken:
            # copies of one checkpoint and adapters on it share its weights, and so an actor
            key = "" if options.placement == "together" else model.base or model.fingerprint
            rest.setdefault(key, []).append(model)
    groups += [(group, None) for group in rest.values()]
    return [_seat(i, group, given, options) for i, (group, given) in enumerate(groups)]


def _seat(number: int, group: Sequence[Model], given: Place | None, options: Options) -> Seat:
    weights = {m.base or m.fingerprint: 0 for m in group}
    for model in group:
        key = model.base or model.fingerprint
        weights[key] = max(weights[key], model.memory or 0)
    wants = any(not m.device_group.startswith(("cpu", "default", "systems")) for m in group)
    gpus = float(wants) if options.gpus == "auto" else options.gpus
    memory = int(_ROOM * sum(weights.values())) + _PROCESS if options.memory == "auto" else int(options.memory * 2**30)
    if given is not None:
        gpus = gpus if given.gpus is None else given.gpus
        memory = memory if given.memory is None else int(given.memory * 2**30)
    return Seat(
        number=number,
        models=tuple(m.name for m in group),
        cpus=options.cpus if given is None or given.cpus is None else given.cpus,
        gpus=gpus,
        memory=memory,
        others=dict(given.resources) if given is not None else {},
    )


def place(seats: Sequence[Seat], nodes: Sequence[Node]) -> list[Node]:
    """Return a node for each actor, largest first onto the node with the most left: what an empty cluster will do.

    Raises ConfigError, one line for each actor that fits nowhere beside the others.
    """
    left = {n.id: {"CPU": n.cpus, "GPU": n.gpus, "memory": float(n.memory), **n.others} for n in nodes}
    by_id = {n.id: n for n in nodes}
    found: dict[int, Node] = {}
    problems = {}
    for seat in sorted(seats, key=lambda s: (-s.gpus, -s.memory, -s.cpus, s.number)):
        fitting = [i for i, has in left.items() if all(has.get(k, 0.0) >= v for k, v in seat.bundle.items())]
        if not fitting:
            problems[seat.number] = _refusal(seat, nodes)
            continue
        best = max(fitting, key=lambda i: (left[i]["GPU"], left[i]["CPU"], left[i]["memory"]))
        for name, value in seat.bundle.items():
            left[best][name] -= value
        found[seat.number] = by_id[best]
    if problems:
        raise ConfigError([problems[i] for i in sorted(problems)])
    return [found[s.number] for s in seats]


def _refusal(seat: Seat, nodes: Sequence[Node]) -> str:
    needs = ", ".join(f"{value:g} {name.replace('memory_gib', 'GiB of memory')}" for name, value in seat.needs.items())
    has = "; ".join(f"{n.name}: {n.cpus:g} cpus, {n.gpus:g} gpus, {n.memory / 2**30:.1f} GiB" for n in nodes)
    alone = any(
        n.cpus >= seat.cpus and n.gpus >= seat.gpus and n.memory >= seat.memory
        and all(n.others.get(k, 0.0) >= v for k, v in seat.others.items())
        for n in nodes
    )  # fmt: skip
    beside = " beside the other actors" if alone else ""
    return (
        f"placement: the actor of {', '.join(seat.models)} needs {needs}; no node has that{beside} ({has or 'no nodes'}); "
        "set cpus, gpus or memory, put models together, or add a node"
    )
