"""The key/value cache of a running batch: preallocated, written in place, rows come and go without repacking.

Row r keeps its i-th token in column i, so a column is a position: no padding on the left, a new row needs no alignment with
the others, and a finished row is replaced by the last one with a single copy. What lies to the right of a row's end is
masked, and overwritten as the row grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from transformers.cache_utils import Cache

__all__ = ["LayerShape", "Slab"]

COLUMN_STEP = 64


@attrs.frozen
class LayerShape:
    """Sizes of one layer's cache: heads and width of keys and of values; ``window`` if the layer slides."""

    heads: int
    key_width: int
    value_heads: int
    value_width: int
    window: int | None = None


class Slab(Cache):
    """A cache of ragged rows for models whose layers are all (full or sliding) attention.

    Every forward works on a contiguous range of rows ``span``, whose new tokens stand in columns ``positions`` (B, Q).
    Set with :meth:`aim`, then pass the slab as ``past_key_values``.
    """

    def __init__(self, shapes: Sequence[LayerShape], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(layers=[])
        self.shapes = tuple(shapes)
        self.dtype, self.device = dtype, device
        self.lengths: list[int] = []
        self._rows = self._columns = 0
        self.capacity = 0  # rows never grow beyond this by themselves
        # layers of one shape share one tensor (layers, rows, heads, columns, width), so that moving a row is one copy
        self._groups: dict[LayerShape, list[int]] = {}
        for i, shape in enumerate(self.shapes):
            self._groups.setdefault(attrs.evolve(shape, window=None), []).append(i)
        self._store: dict[LayerShape, tuple[Tensor, Tensor]] = {}
        self._keys: list[Tensor] = [torch.empty(0)] * len(self.shapes)
        self._values: list[Tensor] = [torch.empty(0)] * len(self.shapes)
        self._span = slice(0, 0)
        self._width = 0
        self._index: tuple[Tensor, Tensor] | None = None

    # ---------------------------------------------------------------- what the model calls

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if self._index is None:  # whole new rows: what was just computed is all there is to attend to
            keys[self._span, :, : self._width] = key_states
            values[self._span, :, : self._width] = value_states
            return key_states, value_states
        rows, columns = self._index
        keys[rows, :, columns] = key_states.transpose(1, 2)
        values[rows, :, columns] = value_states.transpose(1, 2)
        return keys[self._span, :, : self._width], values[self._span, :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 if self._index is None else self._width

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self._width, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self.shapes)

    @property
    def is_linear(self) -> list[bool]:
        return [False] * len(self.shapes)

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_initialized(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.shapes)

    # ---------------------------------------------------------------- what the engine calls

    @property
    def count(self) -> int:
        """Live rows; they are rows 0 to count - 1."""
        return len(self.lengths)

    def bytes_per_token(self) -> int:
        """Bytes of cache per token of one row."""
        size = sum(s.heads * s.key_width + s.value_heads * s.value_width for s in self.shapes)
        return size * self.dtype.itemsize

    @torch.inference_mode()
    def reserve(self, rows: int, columns: int) -> None:
        """Make room for so many rows and columns, keeping what is there."""
        if rows <= self._rows and columns <= self._columns:
            return
        rows = self._rows if rows <= self._rows else max(rows, min(2 * self._rows, self.capacity))
        if columns > self._columns:  # grow by half, so that a long reply reallocates seldom
            columns = max(columns, self._columns + self._columns // 2)
            columns = -(-columns // COLUMN_STEP) * COLUMN_STEP
        else:
            columns = self._columns
        n, width = self.count, max(self.lengths, default=0)
        for shape, members in self._groups.items():
            # zeros, not empty: a masked weight of 0 times an uninitialised NaN would be NaN
            new = (
                torch.zeros(len(members), rows, shape.heads, columns, shape.key_width, **self._where),
                torch.zeros(len(members), rows, shape.value_heads, columns, shape.value_width, **self._where),
            )
            old = self._store.get(shape)
            if old is not None and n:
                for fresh, stale in zip(new, old, strict=True):
                    fresh[:, :n, :, :width] = stale[:, :n, :, :width]
            self._store[shape] = new
            for place, layer in enumerate(members):
                self._keys[layer], self._values[layer] = new[0][place], new[1][place]
        self._rows, self._columns = rows, columns

    @property
    def _where(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "device": self.device}

    def append(self, lengths: Sequence[int]) -> slice:
        """Add rows that will hold so many tokens; returns their range. Their content must be written next."""
        start = self.count
        self.reserve(start + len(lengths), max(lengths, default=0))
        self.lengths.extend(lengths)
        return slice(start, self.count)

    def aim_new(self, span: slice, width: int) -> None:
        """The next forward fills columns 0 to width - 1 of ``span`` and attends to nothing else."""
        self._span, self._width, self._index = span, width, None

    def aim(self, span: slice, positions: Tensor, width: int) -> None:
        """The next forward writes to ``positions`` (B, Q) of ``span`` and attends to columns 0 to width - 1."""
        self._span, self._width = span, width
        rows = torch.arange(span.start, span.stop, device=self.device).unsqueeze(-1)
        self._index = (rows, positions)

    @torch.inference_mode()
    def copy(self, sources: Sequence[int], span: slice) -> None:
        """Fill the rows of ``span`` with the content of other rows."""
        width = max((self.lengths[s] for s in sources), default=0)
        index = torch.tensor(list(sources), device=self.device)
        for keys, values in self._store.values():
            keys[:, span, :, :width] = keys[:, index, :, :width]
            values[:, span, :, :width] = values[:, index, :, :width]

    @torch.inference_mode()
    def drop(self, gone: Sequence[int]) -> list[int]:
        """Remove rows and return, for every row that is left, where it was: new row i is old row ``result[i]``."""
        n = self.count
        left = n - len(gone)
        out = set(gone)
        order = list(range(left))
        holes = [i for i in range(left) if i in out]
        movers = [i for i in range(left, n) if i not in out]
        if movers:
            width = max(self.lengths[i] for i in movers)
            to = torch.tensor(holes, device=self.device)
            source = torch.tensor(movers, device=self.device)
            for keys, values in self._store.values():
                keys[:, to, :, :width] = keys[:, source, :, :width]
                values[:, to, :, :width] = values[:, source, :, :width]
            for hole, mover in zip(holes, movers, strict=True):
                order[hole] = mover
        self.lengths = [self.lengths[i] for i in order]
        return order
