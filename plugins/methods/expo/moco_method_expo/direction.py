"""The line through weaker and stronger models, and the points on it as merges."""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import Model, Pool
from moco_toolkit_merging import Extrapolate, Merge, SourceRef, share_base

__all__ = ["Direction"]


class Direction:
    """From the mean of ``sources`` through the mean of ``targets``; :meth:`at` goes ``alpha`` further.

    Adapters of one base stay an adapter: their updates are added exactly, and the base itself adds nothing.
    """

    def __init__(
        self, targets: Sequence[Model], sources: Sequence[SourceRef], pool: Pool, exclude: Sequence[str] = ()
    ) -> None:
        self.targets, self.sources, self.exclude = list(targets), list(sources), tuple(exclude)
        behind = [s.check(pool) for s in sources]
        self.lora = share_base([*targets, *behind])

    def at(self, alpha: float) -> Merge:
        """Return target + alpha (target - source)."""
        refs = [*(SourceRef.of(m) for m in self.targets), *self.sources]
        if not self.lora:
            return Merge(
                sources=refs, operation=Extrapolate(alpha=alpha, targets=len(self.targets), exclude=self.exclude)
            )
        ahead = [1.0 / len(self.targets)] * len(self.targets)
        behind = [-alpha / len(self.sources)] * len(self.sources)
        coefficients = [(1 + alpha) * a for a in ahead] + behind
        kept = ahead + [0.0] * len(self.sources)
        real = [i for i, ref in enumerate(refs) if not ref.base]  # the base has no tensors to add
        return Merge(
            sources=[refs[i] for i in real],
            coefficients=tuple(coefficients[i] for i in real),
            exclude=self.exclude,
            instead=tuple(kept[i] for i in real) if self.exclude else (),
        )
