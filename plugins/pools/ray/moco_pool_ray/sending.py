"""What is more than a call: files that a derived model is made of, and trainings."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from moco_core import Recipe
from moco_core.training import TrainingSite
from moco_pool_ray.files import PART, listing, pack, parts, unpack
from moco_pool_ray.fleet import Actor

__all__ = ["introduced", "trained"]

_LOOK = 0.2  # seconds between two looks at whether the run is being stopped


def introduced(actor: Actor, recipe: Recipe) -> Recipe:
    """Return a recipe as the actor can follow it: a folder that is not seen from there is sent."""
    folder = getattr(recipe, "folder", None)
    if not isinstance(folder, Path) or not folder.is_dir() or actor.call("has", str(folder), listing(folder)):
        return recipe
    return attrs.evolve(recipe, folder=Path(_send(actor, folder)))  # type: ignore[misc]


def _send(actor: Actor, folder: Path) -> str:
    name = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="moco-ray-") as scratch:
        archive = Path(scratch, "folder.tar")
        pack(folder, archive)
        offset = 0
        for part in parts(archive):
            actor.call("put", name, offset, part)
            offset += len(part)
    return str(actor.call("unpack", name))


def trained(actor: Actor, key: str, job: bytes, site: TrainingSite) -> Mapping[str, Any]:
    """Have a model trained on its actor, with its result in the site's folder, and return the figures.

    Raises what the training raises, and Lost.
    """
    import ray

    name = uuid.uuid4().hex
    probe = site.folder / f".{name}"
    probe.touch()
    try:
        shared = actor.call("train", name, key, job, site.seed, str(site.folder), str(probe))
    finally:
        probe.unlink()
    since, stopping = 0, False
    while True:
        news = actor.send("events", name, since)
        while not ray.wait([news], timeout=_LOOK)[0]:
            if site.cancelled() and not stopping:
                stopping = True
                actor.send("stop", name)
        if site.cancelled() and not stopping:
            stopping = True
            actor.send("stop", name)
        for number, (what, value) in enumerate(actor.get(news), since):
            since = number + 1
            if what == "tell":
                site.tell(value)
            elif what == "reward":
                actor.call("answer", name, number, _rewards(site, value))
            elif what == "failed":
                raise value
            else:
                if not shared:
                    _fetch(actor, name, site.folder)
                figures: Mapping[str, Any] = value
                return figures


def _rewards(site: TrainingSite, rollouts: list[tuple[int, str]]) -> Any:
    try:
        return list(site.reward(rollouts))
    except Exception as error:  # the training ends with it, over there
        return error


def _fetch(actor: Actor, name: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="moco-ray-") as scratch:
        archive = Path(scratch, "folder.tar")
        with archive.open("wb") as file:
            while part := actor.call("fetch", name, file.tell(), PART):
                file.write(part)
        unpack(archive, folder)
