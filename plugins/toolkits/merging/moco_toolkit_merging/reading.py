"""The sources' tensors of one name, for an operation: read lazily, checked for shape, blamed for NaN."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from moco_toolkit_checkpoints.local import Weights, local_engine
from moco_toolkit_merging.tensors import finite
from moco_toolkit_merging.workspace import Workspace

__all__ = ["SourceTensors"]


class SourceTensors:
    """See :class:`moco_toolkit_merging.rules.Inputs`.

    ``prints`` are the sources' fingerprints, ``lora`` the indexes of those that are adapters on the last one.
    """

    def __init__(
        self, name: str, sources: Sequence[Weights], prints: Sequence[str], lora: Collection[int], workspace: Workspace
    ) -> None:
        self.name = name
        self.workspace = workspace
        self._sources = sources
        self._prints = prints
        self._lora = lora
        self._shape: tuple[int, ...] | None = None
        self.used: set[int] = set()  # the sources that were read

    def __len__(self) -> int:
        return len(self._sources)

    def identity(self, index: int) -> str:
        return self._prints[index]

    def get(self, index: int) -> Tensor:
        self.used.add(index)
        tensor: Tensor = self._sources[index].get(self.name)
        shape = tuple(tensor.shape)
        if self._shape is None:
            self._shape = shape
        elif shape != self._shape:
            raise ValueError(
                f"{self.name}: {_text(self._shape)} in one source, {_text(shape)} in {self._who(index)}; "
                "merge checkpoints of one architecture and vocabulary"
            )
        return tensor

    def delta(self, index: int, base: int) -> Tensor:
        if index in self._lora:
            return self._update(index)
        return self.get(index).float() - self.get(base).float()

    def _update(self, index: int) -> Tensor:
        from moco_toolkit_merging.adapters import delta, factors

        self.used.add(index)
        model = self._sources[index].model
        found = self.workspace.remember(
            ("factors", self.identity(index)),
            lambda: factors(local_engine(model).adapter_weights(model), f"adapter {model.name!r}"),
        )
        module, _, leaf = self.name.rpartition(".")
        if leaf == "weight" and module in found:
            return delta(found[module])
        return torch.zeros(self._sources[-1].shape(self.name), dtype=torch.float32)

    def blame(self) -> str:
        """Say which source is not finite, or that the merge itself overflowed."""
        for i in range(len(self)):
            if not finite(self.get(i)):
                return f"{self.name}: {self._who(i)} holds NaN or infinite values; it cannot be merged"
        return f"{self.name}: the merged tensor is not finite though its sources are; use smaller coefficients"

    def _who(self, index: int) -> str:
        source = self._sources[index]
        model, folder = getattr(source, "model", None), getattr(source, "folder", None)
        if model is not None:
            return f"model {model.name!r}"
        return f"source {folder.name!r}" if folder is not None else f"source {index}"


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
