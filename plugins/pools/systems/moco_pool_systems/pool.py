"""The pool plugin: its systems, described as models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import attrs

from moco_core import ConfigError, MocoError, Model, PoolSource
from moco_core.types import digest
from moco_pool_systems.engine import SystemsEngine
from moco_pool_systems.member import Member, Shared, open_member
from moco_pool_systems.options import Entry, Options, entries_of

__all__ = ["SystemsPool"]


class SystemsPool(PoolSource[Options]):
    """Fitted systems as models: a method over systems and plain models, as deep as one likes."""

    Options = Options

    @cached_property
    def engine(self) -> SystemsEngine:
        return SystemsEngine()

    def models(self) -> Sequence[Model]:
        """Describe the systems in order. A saved one that is one model is that model, with all it can do.

        Raises ConfigError with the problems of all entries: a folder that is none, a pool that is gone, a system made of
        itself, two names that are equal.
        """
        entries, shared = entries_of(self.options), Shared()
        found: list[tuple[Entry, Member]] = []
        problems: list[str] = []
        for i, entry in enumerate(entries):
            where = f"systems[{i}] ({entry.run or (entry.method and entry.method.label)})"
            try:
                found.append((entry, open_member(entry, shared)))
            except MocoError as error:
                problems += [f"{where}: {line}" for line in str(error).splitlines()]
        if problems:
            raise ConfigError(problems)
        names = _names([(entry.name, member.name) for entry, member in found])
        copies: Counter[str] = Counter()
        out = []
        for (entry, member), name in zip(found, names, strict=True):
            model = self._as_model(entry, member)
            out.append(attrs.evolve(model, name=name, copy=copies[model.fingerprint]))
            copies[model.fingerprint] += 1
        return out

    def _as_model(self, entry: Entry, member: Member) -> Model:
        pool, method = member.parts.pool, member.parts.method
        said = entry.description or f"{method.title or type(method).__name__} over {', '.join(pool.names)}"
        if member.model is not None:
            return attrs.evolve(member.model, description=entry.description or member.model.description or said)
        lengths = [m.context_length for m in pool]
        sizes = {m.fingerprint: m.memory for m in pool}
        return Model(
            name=member.name,
            fingerprint=member.fingerprint,
            capabilities=frozenset({"generate", "question"}),
            engine=self.engine,
            description=said,
            tokenizer=digest("system tokenizer", member.fingerprint),  # it has none: equal for copies only
            architecture=digest("system architecture", member.fingerprint),
            context_length=None if None in lengths else min(n for n in lengths if n is not None),
            memory=None if None in sizes.values() else sum(n for n in sizes.values() if n is not None),
            device_group="systems",
            sources=tuple(pool),
            info={"member": member},
        )


def _names(given: Sequence[tuple[str, str]]) -> list[str]:
    """Names within the pool: those that were given, and default ones numbered where equal. Raises ConfigError."""
    chosen = [name for name, _ in given if name]
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise ConfigError(f"systems: two are called {twice[0]!r}; give one another name")
    counts = Counter(default for name, default in given if not name)
    used = set(chosen)
    out = []
    for name, default in given:
        candidate, number = name or default, 1
        while not name and (candidate in used or (counts[default] > 1 and number == 1)):
            candidate, number = f"{default}-{number}", number + 1
        used.add(candidate)
        out.append(candidate)
    return out
