"""The fitted form of every weight-level method: one merged model, kept as a recipe."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import attrs

from moco_core import ConfigError, Context, Model, Question, Reply, System
from moco_toolkit_merging.compatibility import check_finite, check_models
from moco_toolkit_merging.export import export_merge
from moco_toolkit_merging.merges import Merge
from moco_toolkit_merging.needs import check_export

__all__ = ["MergedSystem", "finish", "prepare", "saved_merges"]

FORMAT = 1


def saved_merge(merge: Merge | Mapping[str, Any]) -> Merge:
    """Return a merge as itself, and one that was saved as the merge it was. Raises ConfigError."""
    return merge if isinstance(merge, Merge) else Merge.load(merge)


def saved_merges(merges: Sequence[Merge | Mapping[str, Any]]) -> tuple[Merge, ...]:
    """Return merges as :func:`saved_merge` returns one."""
    return tuple(saved_merge(merge) for merge in merges)


def _readable(system: MergedSystem, field: attrs.Attribute[int], value: int) -> None:
    if value != FORMAT:
        raise ConfigError(f"saved system of format {value!r}, this version reads {FORMAT}; fit again")


@attrs.frozen(eq=False, slots=False)
class MergedSystem(System):
    """Answers with one merged model, asked as any single model is. Its state is the recipe; it writes no tensors.

    ``name`` is the merged model's, ``facts`` JSON data about the fit: trace, chosen numbers. Raises ConfigError if a source
    of the merge is gone or has changed.
    """

    name: str
    merge: Merge = attrs.field(converter=saved_merge)
    facts: Mapping[str, Any] = attrs.field(factory=dict)
    format: int = attrs.field(default=FORMAT, validator=_readable)

    def __attrs_post_init__(self) -> None:
        for source in self.merge.sources:
            source.check(self.pool)

    @cached_property
    def merged(self) -> Model:
        """The merged model (a model of the pool where the merge equals one)."""
        return self.merge.model(self.pool, self.name)

    @property
    def model(self) -> Model | None:
        return self.merged

    async def respond(self, question: Question, context: Context) -> Reply:
        return Reply.of(await context.generate(self.merged, question), model=self.merged.name)

    def state(self) -> Mapping[str, Any]:
        return {**super().state(), "merge": self.merge.dump()}


S = TypeVar("S", bound=MergedSystem)


async def prepare(context: Context, models: Sequence[Model], export: str = "", dense: bool = False) -> None:
    """Check what can be known before any work: that the models can be merged, and that ``export`` can be written.

    Reads every weight once, to find broken ones. Raises CapabilityError or ConfigError; what merges but should be known
    becomes a warning of the run.
    """
    check_export(models, export, dense)
    report = await asyncio.to_thread(check_models, models)
    for warning in report.warnings:
        context.warn(warning)
    await asyncio.to_thread(check_finite, models)


async def finish(system: S, method: str) -> S:
    """Write the merge to the folder that the option ``export`` names, if it names one, and return the system."""
    if system.options.export:
        folder = Path(system.options.export)
        await asyncio.to_thread(
            export_merge, system.pool, system.merge, folder, title=system.name, method=method, facts=system.facts
        )
    return system
