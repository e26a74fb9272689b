"""How the engine makes a merged model: recipes whose fingerprints name it in the cache.

Nothing here imports torch until weights are needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import attrs

from moco_core import Model, digest
from moco_core.converters import floats, strings
from moco_toolkit_checkpoints.local import AdapterWeights, Weights, local_engine
from moco_toolkit_merging.operations import dump_operation
from moco_toolkit_merging.rules import Composition, Operation
from moco_toolkit_merging.workspace import Workspace

__all__ = ["AdapterRecipe", "BaseRecipe", "MergeRecipe"]

VERSION = 2  # part of every fingerprint: raise it when an operation's arithmetic changes, or what it reads of its sources


@attrs.frozen(kw_only=True)
class MergeRecipe:
    """Full weights made of the sources' weights by an operation (see :class:`moco_toolkit_checkpoints.local.WeightRecipe`).

    ``sources`` are the fingerprints of the sources, in order. ``lora`` lists the indexes of sources that are adapters on
    the last source, whose update is then taken from their factors, exactly.
    """

    kind: ClassVar[Literal["weights"]] = "weights"
    made_by: ClassVar[tuple[str, int]] = ("merging", VERSION)

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

        inputs = SourceTensors(name, sources, self.sources, self.lora, self.workspace)
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
    """A LoRA adapter made of others (see :class:`moco_toolkit_checkpoints.local.AdapterRecipe`).

    ``coefficients`` has one number per source; modules whose name matches a pattern of ``exclude`` take ``instead``.
    ``names`` are what messages call the sources.
    """

    kind: ClassVar[Literal["adapter"]] = "adapter"
    made_by: ClassVar[tuple[str, int]] = ("merging", VERSION)

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

    kind: ClassVar[Literal["checkpoint"]] = "checkpoint"

    base: str

    @property
    def fingerprint(self) -> str:
        return digest("base", self.base)

    def checkpoint(self, sources: Sequence[Model]) -> Mapping[str, Any]:
        """Return the adapter's pool entry without the adapter."""
        entry = dict(local_engine(sources[0]).entry(sources[0]))
        return {k: v for k, v in entry.items() if k not in ("adapter", "name", "description")}
