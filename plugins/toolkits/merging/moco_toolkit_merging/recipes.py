"""Merged models as values: a recipe, what it is made of, and the derived model it gives.

Nothing here imports torch until weights are needed. A :class:`Merge` is what a fitted system keeps: JSON data that names
the sources and the operation; :meth:`Merge.model` turns it into a model that answers like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import attrs

from moco_core.converters import anything, floats, strings
from moco_core.errors import CapabilityError, ConfigError
from moco_core.models import Model, Pool
from moco_core.options import build, plain
from moco_core.types import digest
from moco_toolkit_merging.operations import Linear, Mean, Operation, dump_operation, load_operation
from moco_toolkit_merging.workspace import Workspace

if TYPE_CHECKING:
    from moco_core.local import AdapterWeights, Weights

__all__ = ["AdapterRecipe", "BaseRecipe", "Composition", "Merge", "MergeRecipe", "SourceRef", "base_of", "resolve"]

Composition = Literal["exact", "factors"]
VERSION = 1  # part of every fingerprint: raise it when an operation's arithmetic changes


@attrs.frozen(kw_only=True)
class MergeRecipe:
    """Full weights made of the sources' weights by an operation (see :class:`moco_core.local.WeightRecipe`).

    ``sources`` are the fingerprints of the sources, in order. ``lora`` lists the indexes of sources that are adapters on
    the last source, whose update is then taken from their factors, exactly.
    """

    operation: Operation
    sources: tuple[str, ...] = attrs.field(converter=strings)
    lora: frozenset[int] = frozenset()
    workspace: Workspace = attrs.field(factory=Workspace, eq=False, repr=False)

    @property
    def fingerprint(self) -> str:
        return digest("merge", VERSION, dump_operation(self.operation), list(self.sources), sorted(self.lora))

    def tensor(self, name: str, sources: Sequence[Weights]) -> Any:
        """Return one tensor of the result. Raises ValueError for shapes that differ or values that are not finite."""
        return self._merge(name, sources, None)

    def write(self, name: str, sources: Sequence[Weights], out: Any) -> bool:
        """Write one tensor of the result straight into ``out``; False, and nothing is done, where that cannot be."""
        if out.device.type != "cpu" or not out.is_contiguous() or not out.is_floating_point():
            return False
        if not math.prod(out.shape) or sources[0].shape(name) != tuple(out.shape):
            return False
        self._merge(name, sources, out)
        return True

    def _merge(self, name: str, sources: Sequence[Weights], out: Any) -> Any:
        import torch

        from moco_toolkit_merging.reading import SourceTensors
        from moco_toolkit_merging.tensors import NotFinite, finite, place

        inputs = SourceTensors(name, sources, self)
        first = inputs.get(0)
        if not first.is_floating_point():
            for i in range(1, len(sources)):
                if not torch.equal(first, inputs.get(i)):
                    raise ValueError(
                        f"{name}: a buffer of {first.dtype} differs between the sources and cannot be merged"
                    )
            return place(first, out)
        try:
            result = self.operation.merge(inputs) if out is None else self.operation.merge(inputs, out)
        except NotFinite:
            raise ValueError(inputs.blame()) from None
        # a search finds out once per tensor that the sources it reads are finite; what it makes of them then is too
        known = ("finite", tuple(self.sources[i] for i in sorted(inputs.used)), name)
        if known not in self.workspace and not finite(result):
            raise ValueError(inputs.blame())
        self.workspace.remember(known, lambda: True)
        return result


@attrs.frozen(kw_only=True)
class AdapterRecipe:
    """A LoRA adapter made of others (see :class:`moco_core.local.AdapterRecipe`).

    ``coefficients`` has one number per source; modules whose name matches a pattern of ``exclude`` take ``instead``.
    ``names`` are what messages call the sources.
    """

    coefficients: tuple[float, ...] = attrs.field(converter=floats)
    sources: tuple[str, ...] = attrs.field(converter=strings)
    composition: Composition = "exact"
    exclude: tuple[str, ...] = attrs.field(default=(), converter=strings)
    instead: tuple[float, ...] = attrs.field(default=(), converter=floats)
    names: tuple[str, ...] = attrs.field(default=(), converter=strings, eq=False)
    workspace: Workspace = attrs.field(factory=Workspace, eq=False, repr=False)

    @property
    def fingerprint(self) -> str:
        facts = {a.name: getattr(self, a.name) for a in attrs.fields(type(self)) if a.eq}
        return digest("merge adapters", VERSION, facts)

    def adapter(self, sources: Sequence[AdapterWeights]) -> AdapterWeights:
        """Return the combined adapter. Raises CapabilityError if the sources cannot be combined that way."""
        from moco_toolkit_merging.adapters import check_composable, combine

        names = self.names or [f"source {i}" for i in range(len(sources))]
        sets = self.workspace.remember(
            ("factors of", self.sources, self.composition),
            lambda: check_composable(sources, names, self.composition),
        )
        return combine(sources, self.of_module, self.composition, sets)

    def of_module(self, module: str) -> tuple[float, ...]:
        """Return the coefficients of one module."""
        left_alone = any(fnmatchcase(name, p) for p in self.exclude for name in (module, f"{module}.weight"))
        return self.instead if left_alone else self.coefficients


@attrs.frozen(kw_only=True)
class BaseRecipe:
    """The model an adapter was trained on, as a model of its own."""

    base: str

    @property
    def fingerprint(self) -> str:
        return digest("base", self.base)

    def checkpoint(self, sources: Sequence[Model]) -> Mapping[str, Any]:
        """Return the adapter's pool entry without the adapter."""
        from moco_core.local import host_of

        entry = dict(host_of(sources[0]).entry(sources[0]))
        return {k: v for k, v in entry.items() if k not in ("adapter", "name", "description")}


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
