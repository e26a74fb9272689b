"""The pool plugin: another pool's models, the bad ones described anew."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from moco_core import CapabilityError, ConfigError, Model, Pool, PoolSource
from moco_core.types import digest
from moco_pool_unreliable.engine import Member, UnreliableEngine
from moco_pool_unreliable.options import Options

__all__ = ["UnreliablePool"]

_VERSION = 1  # of what bad members say: part of their fingerprints


class UnreliablePool(PoolSource[Options]):
    """Any pool with bad members: wrong, colluding, verbose, self-voting or prompt-injecting, drawn by seed."""

    Options = Options

    @cached_property
    def engine(self) -> UnreliableEngine:
        return UnreliableEngine()

    @property
    def inner(self) -> PoolSource[Any]:
        source: PoolSource[Any] = self.options.pool.instance
        return source

    def models(self) -> Sequence[Model]:
        """Describe the models in order; those that are not bad are the other pool's own, unchanged.

        Raises ConfigError for a member that is not there, one that writes no text, and for more bad members than models.
        """
        if self.beside:
            self.inner.beside = self.beside
        models = tuple(self.inner.models())
        bad = self._bad(models)
        mute = next((models[i] for i in bad if not models[i].can("generate")), None)
        if mute is not None:
            raise ConfigError(f"members: {mute.name!r} writes no text, so it cannot be made unreliable")
        return [self._spoilt(model, models[bad[0]]) if i in bad else model for i, model in enumerate(models)]

    def _bad(self, models: Sequence[Model]) -> list[int]:
        """Return the indices of the bad members, in the order of the pool."""
        options = self.options
        if options.bad > len(models):
            raise ConfigError(f"bad: {options.bad} bad members are asked for, the pool has {len(models)} models")
        if options.members:
            named = Pool(models)
            chosen = [models.index(named.named(member, "members")) for member in options.members]
            return sorted(set(chosen))
        order = list(range(len(models)))
        random.Random(int(digest("unreliable", "members", options.seed)[:16], 16)).shuffle(order)
        return sorted(order[: options.bad])

    def _spoilt(self, model: Model, leader: Model) -> Model:
        options = self.options
        colludes = "colluding" in options.behaviour
        member = Member(leader if colludes else model, options.behaviour, options.rate, options.length, options.seed)
        said: list[Any] = [model.fingerprint, sorted(options.behaviour), options.rate, options.seed]
        said.append(options.length if "verbose" in options.behaviour else None)
        said.append(model.name if "self_voting" in options.behaviour else None)
        said.append(leader.fingerprint if colludes else None)
        mark = digest("unreliable", _VERSION, said)
        return attrs.evolve(
            model,
            fingerprint=mark,
            capabilities=model.capabilities & {"generate", "question"},
            engine=self.engine,
            tokenizer=digest("unreliable tokenizer", mark),  # nothing is left that could share one
            architecture=digest("unreliable architecture", mark),
            base="",
            adapter=False,
            recipe=None,
            sources=(model,),
            info={"member": member},
        )

    def export(self, model: Model, folder: Path) -> None:
        """Write a model to disk as the other pool does; a bad member is no checkpoint."""
        if model.engine is self.engine:
            raise CapabilityError(f"{model.name!r} is an unreliable member: there is no checkpoint that behaves so")
        self.inner.export(model, folder)
