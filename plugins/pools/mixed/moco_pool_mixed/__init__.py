"""One pool out of several: models on different engines, local and remote, in one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from moco_core import (
    CapabilityError,
    ConfigError,
    MocoError,
    Model,
    Plugin,
    PoolSource,
    hookimpl,
    option,
    plugin_option,
)
from moco_core.errors import suggest

__all__ = ["MixedPool", "Options", "Section", "moco_pool"]


@attrs.frozen(kw_only=True)
class Section:
    """What a section says beside the name and the options of its pool."""

    prefix: str = option("", help="put before the names of its models")


def _problem(pools: Sequence[Plugin]) -> str | None:
    if not pools:
        return "empty; name at least one pool"
    inner = next((i for i, p in enumerate(pools) if issubclass(p.cls, MixedPool)), None)
    return None if inner is None else f"number {inner} is a mixed pool inside of a mixed pool; list its pools here"


@attrs.frozen(kw_only=True)
class Options:
    """Options of the mixed pool."""

    pools: tuple[Plugin, ...] = plugin_option(
        "pool", further=Section, check=_problem, help="the pools in order, each a section with its name and options"
    )
    order: tuple[str, ...] = option(
        (),
        help="names of models in the order that methods see them (roles go by place); default: as the sections give them",
    )


class MixedPool(PoolSource[Options]):
    """One pool out of several: models on different engines, local and remote, in one order."""

    Options = Options

    def models(self) -> Sequence[Model]:
        """Describe the models of all sections in order. Each keeps its engine, its capabilities and its device group.

        Names that occur in several sections get their pool's name in front. Raises ConfigError with the problems of all
        sections.
        """
        sections = self._described()
        found = [(i, m) for i, models in enumerate(sections) for m in models]
        copies: Counter[str] = Counter()
        out = []
        for (_, model), name in zip(found, self._names(found), strict=True):
            # numbered anew: two sections may open the same model, and copies must sample independently
            out.append(attrs.evolve(model, name=name, copy=copies[model.fingerprint]))
            copies[model.fingerprint] += 1
        return self._ordered(out)

    def _described(self) -> list[Sequence[Model]]:
        """Describe the sections, each by itself; again, around what the others need, where two want one accelerator."""
        found: list[Sequence[Model]] = [()] * len(self.options.pools)
        problems: list[str] = []

        def describe(i: int, section: Plugin) -> None:
            try:
                found[i] = section.instance.models()
            except ConfigError as error:
                problems.extend(f"pools[{i}] ({section.name}): {p}" for p in error.problems)

        for i, section in enumerate(self.options.pools):
            describe(i, section)
        needs = [_needs(models) for models in found]
        if not problems and any(n > 1 for n in Counter(device for need in needs for device in need).values()):
            for i, section in enumerate(self.options.pools):
                others = sum((need for j, need in enumerate(needs) if j != i), Counter[str]())
                section.instance.beside = dict(others)
                describe(i, section)
                needs[i] = _needs(found[i])
        if problems:
            raise ConfigError(problems)
        return found

    def _names(self, found: Sequence[tuple[int, Model]]) -> list[str]:
        sections = self.options.pools
        kinds = Counter(s.name for s in sections)
        plain = [f"{sections[i].further.prefix}{m.name}" for i, m in found]
        counts = Counter(plain)
        out: list[str] = []
        for (i, _), name in zip(found, plain, strict=True):
            if counts[name] > 1:
                kind = sections[i].name
                name = f"{kind}{i if kinds[kind] > 1 else ''}-{name}"
            out.append(name)
        twice = next((n for n in out if out.count(n) > 1), None)
        if twice is not None:
            raise ConfigError(f"pools: two models are called {twice!r}; give their sections different prefixes")
        return out

    def _ordered(self, models: list[Model]) -> list[Model]:
        order = self.options.order
        if not order:
            return models
        by_name = {m.name: m for m in models}
        problems = [
            f"order: no model {n!r} (there are: {', '.join(by_name)}){suggest(n, by_name)}"
            for n in order
            if n not in by_name
        ]
        problems += [f"order: {n!r} stands there twice" for n in sorted({n for n in order if order.count(n) > 1})]
        problems += [f"order: {n!r} is missing; name every model" for n in by_name if n not in order]
        if problems:
            raise ConfigError(problems)
        return [by_name[n] for n in order]

    def export(self, model: Model, folder: Path) -> None:
        """Write a model to disk through the pool that its engine belongs to."""
        for section in self.options.pools:
            try:
                engines = {id(m.engine) for m in section.instance.models()}
            except MocoError:  # a pool that can no longer be described is not the one that made this model
                continue
            if id(model.engine) in engines:
                section.instance.export(model, folder)
                return
        raise CapabilityError(f"{model.name!r} belongs to no pool of this mixed pool")


def _needs(models: Sequence[Model]) -> Counter[str]:
    """Return the bytes of weights on each accelerator; a device group such as ``cuda:0+1, 45 %`` names several."""
    out: Counter[str] = Counter()
    for group, model in {(m.device_group, m.base or m.fingerprint): m for m in models}.items():
        kind, _, numbers = group[0].partition(",")[0].partition(":")
        devices = [f"{kind}:{n}" for n in numbers.split("+") if n.isdecimal()]
        out.update({device: (model.memory or 0) // len(devices) for device in devices})
    return out


@hookimpl
def moco_pool() -> type[MixedPool]:
    """Register the pool."""
    return MixedPool
