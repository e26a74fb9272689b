"""What a fitted system keeps of a merged model: its sources by name and what is made of them, as JSON data.

:meth:`Merge.model` turns it into a model that answers like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_core import CapabilityError, ConfigError, Model, Pool, build, plain
from moco_core.converters import anything, floats, strings
from moco_toolkit_merging.operations import Linear, Mean, dump_operation, load_operation
from moco_toolkit_merging.recipes import AdapterRecipe, BaseRecipe, MergeRecipe
from moco_toolkit_merging.rules import Composition, Operation
from moco_toolkit_merging.workspace import Workspace

__all__ = ["Merge", "SourceRef", "base_of", "resolve"]


def base_of(pool: Pool, adapter: Model) -> Model:
    """Return the base of a LoRA adapter as a model of the same engine. Raises CapabilityError for a full model."""
    if not adapter.adapter:
        raise CapabilityError(
            f"model {adapter.name!r} is no LoRA adapter, so its base is unknown; name it with option 'base'"
        )
    return pool.derive(f"base of {adapter.name}", BaseRecipe(base=adapter.base), [adapter])


@attrs.frozen(kw_only=True)
class SourceRef:
    """One source of a merge: a model of the pool, or the base of an adapter of the pool."""

    model: str
    base: bool = False
    fingerprint: str = ""

    @classmethod
    def of(cls, model: Model, *, base: bool = False) -> SourceRef:
        return cls(model=model.name, base=base, fingerprint=model.base if base else model.fingerprint)

    def check(self, pool: Pool) -> Model:
        """Return the pool's model behind this source. Raises ConfigError if it is gone or has other weights now."""
        model = pool.named(self.model, "sources")
        now = model.base if self.base else model.fingerprint
        if self.fingerprint and now != self.fingerprint:
            raise ConfigError(
                f"model {self.model!r} has changed since the system was fitted (fingerprint {now[:12]}, "
                f"was {self.fingerprint[:12]}); fit again or use the old pool"
            )
        return model

    def find(self, pool: Pool) -> Model:
        """Return the source as a model. Raises ConfigError if it is gone or has other weights now."""
        model = self.check(pool)
        return base_of(pool, model) if self.base else model


@attrs.frozen(kw_only=True)
class Merge:
    """What to make out of which models of a pool: the saved form of a merged model.

    Either ``operation`` on full weights, or ``coefficients`` of LoRA adapters that stay an adapter.
    """

    sources: tuple[SourceRef, ...] = attrs.field(converter=anything)
    operation: Operation | None = None
    coefficients: tuple[float, ...] | None = None
    composition: Composition = "exact"
    exclude: tuple[str, ...] = attrs.field(default=(), converter=strings)
    instead: tuple[float, ...] = attrs.field(default=(), converter=floats)

    def __attrs_post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources: empty; name at least one model")
        if self.operation is not None:
            self.operation.check(len(self.sources))
        elif self.coefficients is None or len(self.coefficients) != len(self.sources):
            count = len(self.coefficients or ())
            raise ConfigError(f"coefficients: {count} numbers for {len(self.sources)} models; give one for each")

    @classmethod
    def weights(cls, operation: Operation, models: Sequence[Model], base: SourceRef | None = None) -> Merge:
        """Merge full weights of ``models``, then ``base`` as the last source if the operation takes one."""
        refs = [SourceRef.of(m) for m in models]
        return cls(sources=(*refs, base) if base else tuple(refs), operation=operation)

    @classmethod
    def adapters(
        cls,
        coefficients: Sequence[float],
        models: Sequence[Model],
        composition: Composition = "exact",
        *,
        exclude: Sequence[str] = (),
        instead: Sequence[float] = (),
    ) -> Merge:
        """Combine LoRA adapters of one base into one."""
        return cls(
            sources=tuple(SourceRef.of(m) for m in models),
            coefficients=tuple(float(c) for c in coefficients),
            composition=composition,
            exclude=tuple(exclude),
            instead=tuple(instead),
        )

    @classmethod
    def of_one(cls, model: Model) -> Merge:
        """A single model, unchanged."""
        return cls.weights(Linear(coefficients=(1.0,)), [model])

    def only(self) -> int | None:
        """Return the index of the source this equals exactly, or None."""
        if self.operation is None:
            return _one_hot(self.coefficients or ()) if not self.exclude else None
        if isinstance(self.operation, Linear):
            return _one_hot(self.operation.coefficients)
        if isinstance(self.operation, Mean) and len(self.sources) == 1:
            return 0
        return None

    def recipe(self, workspace: Workspace | None = None) -> MergeRecipe | AdapterRecipe:
        prints = tuple(s.fingerprint for s in self.sources)
        if self.operation is None:
            return AdapterRecipe(
                coefficients=self.coefficients or (),
                sources=prints,
                composition=self.composition,
                exclude=self.exclude,
                instead=self.instead,
                names=tuple(s.model for s in self.sources),
                workspace=workspace or Workspace(),
            )
        # whether a source is an adapter on the base is a fact of the pool; it is filled in by ``model``
        return MergeRecipe(operation=self.operation, sources=prints, workspace=workspace or Workspace())

    def model(self, pool: Pool, name: str, workspace: Workspace | None = None) -> Model:
        """Return the merged model; a source itself, with its own name, where the merge equals it.

        Raises ConfigError if a source is gone or changed, CapabilityError if the pool cannot make merged models.
        """
        only = self.only()
        if only is not None:
            return self.sources[only].find(pool)
        sources = [s.find(pool) for s in self.sources]
        recipe = self.recipe(workspace)
        last = self.sources[-1]
        if isinstance(recipe, MergeRecipe) and last.base:
            root = pool.named(last.model).base
            lora = frozenset(i for i, m in enumerate(sources[:-1]) if m.adapter and m.base == root)
            recipe = attrs.evolve(recipe, lora=lora)
        return pool.derive(name, recipe, sources)

    def dump(self) -> dict[str, Any]:
        """Return the merge as JSON data."""
        out: dict[str, Any] = {"sources": [plain(s) for s in self.sources]}
        if self.operation is not None:
            out["operation"] = dump_operation(self.operation)
        else:
            out |= {"coefficients": list(self.coefficients or ()), "composition": self.composition}
            if self.exclude:
                out |= {"exclude": list(self.exclude), "instead": list(self.instead)}
        return out

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Merge:
        """Invert :meth:`dump`. Raises ConfigError."""
        refs = tuple(build(SourceRef, s, f"sources[{i}]") for i, s in enumerate(data.get("sources", ())))
        if "operation" in data:
            return cls(sources=refs, operation=load_operation(data["operation"]))
        coefficients = data.get("coefficients")
        return cls(
            sources=refs,
            coefficients=None if coefficients is None else tuple(float(c) for c in coefficients),
            composition=data.get("composition", "exact"),
            exclude=tuple(data.get("exclude", ())),
            instead=tuple(data.get("instead", ())),
        )


def _one_hot(coefficients: Sequence[float]) -> int | None:
    used = [i for i, c in enumerate(coefficients) if c != 0]
    return used[0] if len(used) == 1 and coefficients[used[0]] == 1 else None


def resolve(pool: Pool, base: str, experts: Sequence[Model], what: str) -> SourceRef:
    """Return the base of ``experts``: the pool model called ``base``, or what all adapters were trained on.

    Raises ConfigError if it is not known.
    """
    if base:
        return SourceRef.of(pool.named(base, "base"))
    if experts and all(m.adapter for m in experts) and len({m.base for m in experts}) == 1:
        return SourceRef.of(experts[0], base=True)
    raise ConfigError(
        f"base: {what} needs the model the others were trained from; add it to the pool and name it with option 'base'"
    )
