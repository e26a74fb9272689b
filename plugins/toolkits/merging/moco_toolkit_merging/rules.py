"""What a merging rule is: the words it is configured with, what it is given, and what it promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from moco_toolkit_merging.workspace import Workspace

__all__ = ["Composition", "Inputs", "Operation", "Rescale", "Shapes", "Sparsify", "Tensor", "Vote"]

Tensor = Any
Composition = Literal["exact", "factors"]
"""``exact`` adds the updates of LoRA adapters (by rank concatenation), ``factors`` their A and B, as LoraHub does."""
Sparsify = Literal["none", "dare", "ties"]
Rescale = Literal["inverse_density", "l1", "none"]
Vote = Literal["sum", "count", "none"]


class Shapes(Protocol):
    """A checkpoint as a comparison sees it: its configuration, and the shapes of its tensors by name."""

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def names(self) -> Sequence[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...


class Inputs(Protocol):
    """The sources' tensors of one name, read when they are asked for. Never change one in place."""

    name: str
    workspace: Workspace

    def __len__(self) -> int: ...

    def get(self, index: int) -> Tensor:
        """Return source ``index``'s tensor in its stored dtype."""

    def delta(self, index: int, base: int) -> Tensor:
        """Return float32(source) - float32(base); for a LoRA adapter on that very base its update c B A, exactly."""

    def identity(self, index: int) -> str:
        """Return the source's fingerprint."""


class Operation(Protocol):
    """One merging rule. ``elementwise``: every entry of the result depends on that entry of the sources alone, so that a
    tensor can be merged in blocks.
    """

    kind: ClassVar[str]
    elementwise: ClassVar[bool]

    def check(self, sources: int) -> None:
        """Raise ConfigError unless the operation's numbers fit that many sources."""

    def merge(self, inputs: Inputs, out: Tensor | None = None) -> Tensor:
        """Return the result's tensor, float32 or wider. It may alias a source if it equals one.

        Where ``out`` is given (contiguous, on the CPU, of any floating type), the result is written there, cast once.
        """
