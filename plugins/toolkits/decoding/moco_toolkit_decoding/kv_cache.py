"""A key/value cache of ragged rows: preallocated, written in place, each row rolled back by itself.

Row r keeps its i-th token in column i, so a column is a position: there is no padding on the left, a new row needs no alignment
with the others, rolling back is a smaller length, and a finished row is replaced by the last one with a single copy. What lies
to the right of a row's end is masked, and overwritten as the row grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from moco_toolkit_checkpoints.transformers import Cache

__all__ = ["KVCache", "LayerShape", "bucket", "side_by_side"]

COLUMN_STEP = 64


@attrs.frozen
class LayerShape:
    """Sizes of one layer's cache: heads and width of keys and of values; ``window`` if the layer slides."""

    heads: int
    key_width: int
    value_heads: int
    value_width: int
    window: int | None = None


class KVCache(Cache):
    """Keys and values of ragged rows, for models whose layers are all (full or sliding) attention.

    ``lengths[r]`` is the number of tokens of row r. Every forward works on some rows, chosen with :meth:`aim`, and is given
    the cache as ``past_key_values``: :class:`~moco_toolkit_decoding.runner.ModelRunner` does both. Room for rows grows in
    doubling steps up to ``capacity``, and beyond it by what is asked for.
    """

    def __init__(
        self, shapes: Sequence[LayerShape], dtype: torch.dtype, device: torch.device, *, capacity: int = 256
    ) -> None:
        super().__init__(layers=[])
        self.shapes = tuple(shapes)
        self.windows = frozenset(s.window for s in shapes)
        self.dtype, self.device, self.capacity = dtype, device, capacity
        self.lengths: list[int] = []
        self.tokens = 0  # read so far, those of rows that left included
        self._rows = self._columns = 0
        # layers of one shape share one tensor (layers, rows, heads, columns, width), so that moving a row is one copy
        self._groups: dict[LayerShape, list[int]] = {}
        for i, shape in enumerate(self.shapes):
            self._groups.setdefault(attrs.evolve(shape, window=None), []).append(i)
        self._store: dict[LayerShape, tuple[Tensor, Tensor]] = {}
        self._keys: list[Tensor] = [torch.empty(0)] * len(self.shapes)
        self._values: list[Tensor] = [torch.empty(0)] * len(self.shapes)
        self._read: slice | Tensor = slice(0, 0)
        self._write: tuple[Tensor, Tensor] | None = None
        self._start: int | None = None
        self._width = 0

    # ---------------------------------------------------------------- what the model calls

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values, width = self._keys[layer_idx], self._values[layer_idx], self._width
        if self._write is None:  # whole new rows: what was just computed is all there is to attend to
            keys[self._read, :, :width] = key_states
            values[self._read, :, :width] = value_states
            return key_states, value_states
        if self._start is not None:  # all rows write the same columns: a plain copy
            stop = self._start + key_states.shape[2]
            keys[self._read, :, self._start : stop] = key_states
            values[self._read, :, self._start : stop] = value_states
        else:
            rows, columns = self._write
            keys[rows, :, columns] = key_states.transpose(1, 2)
            values[rows, :, columns] = value_states.transpose(1, 2)
        # the columns first: they are a view, of which rows that do not lie side by side are copied
        return keys[:, :, :width][self._read], values[:, :, :width][self._read]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 if self._write is None else self._width

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

    # ---------------------------------------------------------------- rows

    @property
    def count(self) -> int:
        """Rows in use; they are rows 0 to count - 1."""
        return len(self.lengths)

    @property
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
        n, width = min(self.count, self._rows), max(self.lengths, default=0)
        where: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        for shape, members in self._groups.items():
            # zeros, not empty: a masked weight of 0 times an uninitialised NaN would be NaN
            new = (
                torch.zeros(len(members), rows, shape.heads, columns, shape.key_width, **where),
                torch.zeros(len(members), rows, shape.value_heads, columns, shape.value_width, **where),
            )
            old = self._store.get(shape)
            if old is not None and n:
                for fresh, stale in zip(new, old, strict=True):
                    fresh[:, :n, :, :width] = stale[:, :n, :, :width]
            self._store[shape] = new
            for place, layer in enumerate(members):
                self._keys[layer], self._values[layer] = new[0][place], new[1][place]
        self._rows, self._columns = rows, columns

    def append(self, rows: int) -> range:
        """Add so many empty rows and return their numbers."""
        start = self.count
        self.lengths += [0] * rows
        self.reserve(self.count, 0)
        return range(start, self.count)

    def rollback(self, row: int, length: int) -> None:
        """Keep the first ``length`` tokens of a row, at most."""
        self.lengths[row] = min(self.lengths[row], length)

    def grow(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Note how long rows are after a forward."""
        for row, length in zip(rows, lengths, strict=True):
            self.tokens += length - self.lengths[row]
            self.lengths[row] = length

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Make rows equal to other rows."""
        self._move(sources, targets)
        for source, target in zip(sources, targets, strict=True):
            self.lengths[target] = self.lengths[source]

    @torch.inference_mode()
    def extract(self, row: int, start: int, stop: int) -> list[tuple[Tensor, Tensor]]:
        """Return copies of some columns of a row: keys and values of every kind of layer, (layers, heads, columns, width)."""
        return [
            (keys[:, row, :, start:stop].clone(), values[:, row, :, start:stop].clone())
            for keys, values in self._store.values()
        ]

    @torch.inference_mode()
    def extend(self, row: int, pieces: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Append columns that :meth:`extract` returned of a cache of the same model; they are not counted as read."""
        start = self.lengths[row]
        stop = start + pieces[0][0].shape[2]
        self.reserve(self.count, stop)
        for (keys, values), (new_keys, new_values) in zip(self._store.values(), pieces, strict=True):
            keys[:, row, :, start:stop] = new_keys
            values[:, row, :, start:stop] = new_values
        self.lengths[row] = stop

    def drop(self, gone: Sequence[int]) -> list[int]:
        """Remove rows and return, for every row that is left, where it was: new row i is old row ``result[i]``."""
        n = self.count
        left = n - len(gone)
        out = set(gone)
        order = list(range(left))
        holes = [i for i in range(left) if i in out]
        movers = [i for i in range(left, n) if i not in out]
        if movers:
            self._move(movers, holes)
            for hole, mover in zip(holes, movers, strict=True):
                order[hole] = mover
        self.lengths = [self.lengths[i] for i in order]
        return order

    @torch.inference_mode()
    def _move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        width = max((self.lengths[s] for s in sources), default=0)
        source, target = (torch.tensor(list(rows), device=self.device) for rows in (sources, targets))
        for tensors in self._store.values():
            for tensor in tensors:
                tensor[:, target, :, :width] = tensor[:, source, :, :width]

    # ---------------------------------------------------------------- the next forward

    def aim(self, rows: Sequence[int], columns: Tensor | None, width: int, *, even: bool = False) -> None:
        """Have the next forward write to ``columns`` (B, Q) of these rows, and attend to their columns 0 to width - 1.

        Without ``columns`` the rows are new: it fills columns 0 to width - 1 and attends to nothing else. ``even`` says that
        every row is read Q tokens further, without padding.
        """
        start, stop = rows[0], rows[0] + len(rows)
        # rows side by side are read in place, others are copied
        together = list(rows) == list(range(start, stop))
        index = torch.arange(start, stop) if together else torch.tensor(list(rows))
        index = index.to(self.device)
        self._read = slice(start, stop) if together else index
        self._write = None if columns is None else (index.unsqueeze(-1), columns)
        here = self.lengths[start]
        self._start = here if even and together and all(self.lengths[row] == here for row in rows) else None
        self._width = width


def bucket(rows: Sequence[Sequence[int]], tokens: int = 4096, waste: float = 0.25) -> Iterator[list[int]]:
    """Group rows by length, longest first, so that padding stays below ``waste`` and a group below ``tokens``."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    group: list[int] = []
    real = 0
    for i in order:
        if group:
            width = len(rows[group[0]])
            padded = width * (len(group) + 1)
            if padded > tokens or padded - (real + len(rows[i])) > max(waste * padded, 256):
                yield group
                group, real = [], 0
        group.append(i)
        real += len(rows[i])
    if group:
        yield group


def side_by_side(cache: KVCache, rows: Sequence[int], chunks: Sequence[Sequence[int]]) -> list[list[int]]:
    """Group chunks that are read together: new rows apart from others, since they need no mask."""
    out: list[list[int]] = []
    for new in (True, False):
        members = [i for i, row in enumerate(rows) if (cache.lengths[row] == 0) == new]
        groups = bucket([chunks[i] for i in members])
        out += [sorted((members[n] for n in group), key=lambda i: rows[i]) for group in groups]
    return out
