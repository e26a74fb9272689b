"""Opening what a run is made of: pools, metrics with the models they score with, splits of datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import attrs

from moco_core.data import Dataset, Split
from moco_core.errors import CapabilityError, DatasetError
from moco_core.models import Pool, PoolSource
from moco_core.options import Plugin, plugins_in
from moco_core.runs.baseline import Single
from moco_core.types import Example, canonical


@attrs.frozen(kw_only=True)
class LoadedSplit:
    """The examples of a split that are used, and a digest of all that they say."""

    examples: tuple[Example, ...]
    fingerprint: str


def open_pool(plugin: Plugin) -> Pool:
    """Describe the models of a pool plugin; nothing is loaded."""
    source: PoolSource[Any] = plugin.make()
    models = source.models()
    if not models:
        raise CapabilityError(f"pool {plugin.name!r} has no models")
    return Pool(models)


def priced(pool: Pool, prices: Mapping[str, tuple[float, float]]) -> Pool:
    """Return a pool whose models have these prices, by name; those of other models are let alone."""
    return Pool(attrs.evolve(m, prices=prices[m.name]) if m.name in prices else m for m in pool) if prices else pool


def single_plugin(model: str | int) -> Plugin:
    """Return the baseline of one model, by its name or index."""
    options = Single.Options(model=model)
    return Plugin(kind="method", name="single", given={"model": model}, options=options, cls=Single)


def pools_of(*plugins: Plugin, prices: Mapping[str, tuple[float, float]] | None = None) -> tuple[Pool, ...]:
    """Describe the pools that the options of plugins hold: a judge's, say. Raises ConfigError.

    Who holds them reaches the models through the same instances; with ``prices`` they have these from now on.
    """
    held = {id(p): p for plugin in plugins for p in plugins_in(plugin.options, "pool")}
    for plugin in held.values() if prices else ():
        vars(plugin.instance)["pool"] = priced(plugin.instance.pool, prices or {})
    return tuple(p.instance.pool for p in held.values())


def load_split(dataset: Dataset[Any], name: str, split: Split, limit: int | None) -> LoadedSplit:
    """Read a split, or its first ``limit`` examples and what completes the last one's group; check ids, fingerprint it.

    Raises DatasetError.
    """
    examples: list[Example] = []
    seen: set[str] = set()
    hasher = hashlib.sha256()
    for example in dataset.examples(split):
        if limit is not None and len(examples) >= limit:
            # examples that score together count only together
            if not examples or not example.group or example.group != examples[-1].group:
                break
        if example.id in seen:
            raise DatasetError(f"dataset {name!r}, {split} split: two examples have the id {example.id!r}")
        seen.add(example.id)
        question = example.question
        said: list[Any] = [question.id, question.text(), question.system, example.references, example.answer]
        if question.history:
            said.append([[m.role, m.content] for m in question.history])
        hasher.update(canonical(said).encode("utf-8", "surrogatepass"))
        examples.append(example)
    return LoadedSplit(examples=tuple(examples), fingerprint=hasher.hexdigest()[:32])
