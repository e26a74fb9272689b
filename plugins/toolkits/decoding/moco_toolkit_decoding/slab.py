"""A key/value cache of many rows in one slab, for continuous batching and exact per-row rollback.

Row ``r`` owns the slots ``0 .. lengths[r] - 1`` of its line in ``(rows, heads, slots, head_dim)`` buffers: slot and position
are the same number. Rolling back is therefore nothing but a smaller length (the stale slots lie beyond every later query's
causal horizon until they are overwritten), there are never holes inside a row, and a row that leaves is replaced by the last
one. New tokens are *right-aligned* in a chunk of Q columns, so the last column is every row's newest token whatever the
chunk sizes are; the padding columns on the left write into a slot that nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from moco_core.errors import CapabilityError

__all__ = ["Forward", "Slab"]

CHUNK = 512
"""Longest chunk of one forward: a long prompt is read in pieces."""

BATCH_TOKENS = 8192
"""Most tokens, padding included, that one forward reads."""

SCORE_TOKENS = 1024
"""Most positions, padding included, of which one forward returns all scores."""


class Forward(Protocol):
    """What the slab needs of a loaded model; see ``moco_core.local.Loaded``."""

    @property
    def module(self) -> Any: ...

    @property
    def device(self) -> Any: ...

    @property
    def supports_rollback(self) -> bool: ...

    def forward(
        self, ids: Any, mask: Any, positions: Any, cache: Any, *, keep: int = 1, hidden: bool = False
    ) -> Any: ...


class _Layer(CacheLayerMixin):
    """One layer's keys and values, for all rows of the slab."""

    is_compileable = False
    is_sliding = False
    is_croppable = True

    def __init__(self, cache: _SlabCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, slots = self.cache.rows, self.cache.slots
        self.keys = key_states.new_zeros((rows, key_states.shape[1], slots, key_states.shape[-1]))
        self.values = value_states.new_zeros((rows, value_states.shape[1], slots, value_states.shape[-1]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._write(self.keys, key_states), self._write(self.values, value_states)

    def _write(self, buffer: Any, new: Tensor) -> Tensor:
        cache = self.cache
        if cache.flat is not None:  # all rows write the same slots: a plain copy
            rows, start = cache.flat
            buffer[rows, :, start : start + new.shape[2]] = new
        else:
            buffer[cache.index, :, cache.targets] = new.transpose(1, 2)
        out: Tensor = buffer[:, :, : cache.width][cache.select]
        return out

    def resize(self, rows: int, slots: int) -> None:
        if not self.is_initialized:
            return
        for name in ("keys", "values"):
            old = getattr(self, name)
            grown = old.new_zeros((rows, old.shape[1], slots, old.shape[3]))
            r, s = min(rows, old.shape[0]), min(slots, old.shape[2])
            grown[:r, :, :s] = old[:r, :, :s]
            setattr(self, name, grown)

    def get_seq_length(self) -> int:
        return self.cache.width if self.is_initialized else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.width, 0

    def get_max_length(self) -> int:
        return -1

    def batch_repeat_interleave(self, repeats: int) -> None:
        raise NotImplementedError("slab rows are copied with Slab.copy_row")

    def crop(self, tokens_to_remove: int) -> None:
        raise NotImplementedError("slab rows are cropped one by one with Slab.crop")


class _SlabCache(Cache):
    """The transformers side of the slab: its fields say where the forward in progress reads and writes."""

    def __init__(self, rows: int, slots: int) -> None:
        super().__init__(layers=[])
        self.rows, self.slots, self.width = rows, slots, 0
        self.select: slice | Tensor = slice(0, 0)
        self.index: Tensor | None = None
        self.targets: Tensor | None = None
        self.flat: tuple[slice, int] | None = None

    @property
    def slabs(self) -> list[Any]:
        """The layers, all of them :class:`_Layer`."""
        return self.layers

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        while len(self.layers) <= layer_idx:
            self.layers.append(_Layer(self))
        keys, values = self.slabs[layer_idx].update(key_states, value_states)
        return keys, values


class Slab:
    """The cache of one loaded model.

    ``rows`` and ``slots`` are first sizes; both grow when needed. Raises CapabilityError for architectures whose state
    cannot be rolled back (recurrent or linear attention layers).
    """

    def __init__(self, loaded: Forward, *, rows: int = 8, slots: int = 128) -> None:
        if not loaded.supports_rollback:
            name = type(loaded.module).__name__
            raise CapabilityError(
                f"{name} has recurrent layers, which cannot be rolled back; use an attention-only model"
            )
        self.loaded = loaded
        self.lengths: list[int] = [0] * rows
        self.forwards = 0
        self.tokens = 0
        config = loaded.module.config
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        self._window = getattr(config, "sliding_window", None)
        types = getattr(config, "layer_types", None)
        self._types = frozenset(types) if types else None
        unknown = (self._types or frozenset()) - {"full_attention", "sliding_attention"}
        if unknown:
            raise CapabilityError(
                f"{type(loaded.module).__name__} uses {', '.join(sorted(unknown))}, which slabs do not know"
            )
        self._additive = getattr(config, "_attn_implementation", "sdpa") != "sdpa"
        self._cache = _SlabCache(rows, slots)

    # ---------------------------------------------------------------- rows

    @property
    def rows(self) -> int:
        return self._cache.rows

    @property
    def bytes_per_slot(self) -> int:
        """Bytes that one token of one row takes; 0 before the first forward."""
        return sum(
            t.shape[1] * t.shape[3] * t.element_size()
            for layer in self._cache.slabs
            if layer.is_initialized
            for t in (layer.keys, layer.values)
        )

    def crop(self, row: int, length: int) -> None:
        """Keep the first ``length`` tokens of a row."""
        self.lengths[row] = min(self.lengths[row], length)

    def copy_row(self, source: int, target: int) -> None:
        """Make ``target`` equal to ``source``."""
        self.reserve(max(source, target) + 1, 0)
        n = self.lengths[source]
        for layer in self._cache.slabs:
            if layer.is_initialized and n:
                layer.keys[target, :, :n] = layer.keys[source, :, :n]
                layer.values[target, :, :n] = layer.values[source, :, :n]
        self.lengths[target] = n

    def reserve(self, rows: int, slots: int) -> None:
        """Grow so that ``rows`` rows of ``slots`` tokens fit, with one spare slot that padding writes to."""
        cache = self._cache
        slots += 1
        if rows <= cache.rows and slots <= cache.slots:
            return
        new_rows = cache.rows if rows <= cache.rows else max(rows, cache.rows * 3 // 2)
        new_slots = cache.slots if slots <= cache.slots else -(-max(slots, cache.slots * 5 // 4) // 64) * 64
        for layer in cache.slabs:
            layer.resize(new_rows, new_slots)
        cache.rows, cache.slots = new_rows, new_slots
        self.lengths.extend([0] * (new_rows - len(self.lengths)))

    # ---------------------------------------------------------------- forward

    def feed(self, rows: Sequence[int], chunks: Sequence[Sequence[int]], *, hidden: bool = False) -> tuple[Tensor, Any]:
        """Append ``chunks[i]`` (at least one token) to row ``rows[i]`` and return the last position's logits.

        Returns float32 logits (B, V) in the order of ``rows`` and, if asked for, hidden states (B, H). Rows of similar
        chunk length are read together; long chunks are read in pieces.
        """
        if len(rows) == 1 or max(map(len, chunks)) == 1:
            groups = [list(range(len(rows)))]
        else:
            groups = _buckets([len(c) for c in chunks])
        parts: list[tuple[list[int], Tensor, Any]] = []
        for group in groups:
            logits, states = self._feed_group([rows[i] for i in group], [chunks[i] for i in group], hidden)
            parts.append((group, logits, states))
        if len(parts) == 1 and parts[0][0] == list(range(len(rows))):
            return parts[0][1], parts[0][2]
        order = torch.tensor([i for group, _, _ in parts for i in group], device=parts[0][1].device).argsort()
        logits = torch.cat([p[1] for p in parts])[order]
        return logits, torch.cat([p[2] for p in parts])[order] if hidden else None

    def feed_all(
        self, rows: Sequence[int], chunks: Sequence[Sequence[int]], *, hidden: bool = False
    ) -> Iterator[tuple[int, Tensor, Any]]:
        """Append chunks and yield ``(i, logits, hidden)`` of every row as it is read: float32 (len(chunks[i]), V or H).

        Unlike :meth:`feed` this materialises the scores of every position, so rows come in small groups. A chunk longer than
        one forward comes in several pieces, in order.
        """
        order = sorted(range(len(rows)), key=lambda i: len(chunks[i]))
        while order:
            longest = min(len(chunks[order[-1]]), CHUNK)
            take = max(1, SCORE_TOKENS // longest)
            group, order = order[-take:], order[:-take]
            if longest < max(len(chunks[i]) for i in group):
                for i in group:
                    for at in range(0, len(chunks[i]), CHUNK):
                        out = self._forward([rows[i]], [chunks[i][at : at + CHUNK]], keep=0, hidden=hidden)
                        yield i, out.logits[0], out.hidden[0] if hidden else None
                continue
            group.sort(key=lambda i: rows[i])
            out = self._forward([rows[i] for i in group], [chunks[i] for i in group], keep=0, hidden=hidden)
            for place, i in enumerate(group):
                first = out.logits.shape[1] - len(chunks[i])
                yield i, out.logits[place, first:], out.hidden[place, first:] if hidden else None

    def _feed_group(self, rows: list[int], chunks: list[Sequence[int]], hidden: bool) -> tuple[Tensor, Any]:
        rest = [list(c) for c in chunks]
        while (longest := max(map(len, rest))) > CHUNK:
            # read the front of the longest rows until what remains of every row fits in one chunk
            early = [i for i, c in enumerate(rest) if len(c) > CHUNK]
            size = {i: min(CHUNK, len(rest[i]) - CHUNK) if longest < 2 * CHUNK else CHUNK for i in early}
            self._forward([rows[i] for i in early], [rest[i][: size[i]] for i in early], keep=1, hidden=False)
            for i in early:
                rest[i] = rest[i][size[i] :]
        out = self._forward(rows, rest, keep=1, hidden=hidden)
        return out.logits, out.hidden

    def _forward(self, rows: Sequence[int], chunks: Sequence[Sequence[int]], *, keep: int, hidden: bool) -> Any:
        width_q = max(map(len, chunks))
        starts = [self.lengths[r] for r in rows]
        ends = [s + len(c) for s, c in zip(starts, chunks, strict=True)]
        self.reserve(max(rows) + 1, max(ends))
        device, cache = self.loaded.device, self._cache
        spare = cache.slots - 1
        ids: list[list[int]] = []
        slots: list[list[int]] = []
        for start, chunk in zip(starts, chunks, strict=True):
            pad = width_q - len(chunk)
            ids.append([0] * pad + list(chunk))
            slots.append([spare] * pad + list(range(start, start + len(chunk))))
        targets = torch.tensor(slots, device=device)
        positions = targets.masked_fill(targets == spare, 0)
        first, span = rows[0], slice(rows[0], rows[0] + len(rows))
        contiguous = list(rows) == list(range(first, first + len(rows)))
        index = torch.tensor(rows, device=device)
        cache.width = max(ends)
        cache.select = span if contiguous else index
        cache.index, cache.targets = index[:, None], targets
        even = contiguous and len(set(starts)) == 1 and all(len(c) == width_q for c in chunks)
        cache.flat = (span, starts[0]) if even else None
        out = self.loaded.forward(
            torch.tensor(ids, device=device),
            self._mask(positions, cache.width),
            positions,
            cache,
            keep=keep,
            hidden=hidden,
        )
        for r, end in zip(rows, ends, strict=True):
            self.lengths[r] = end
        self.forwards += 1
        self.tokens += sum(map(len, chunks))
        return out

    def _mask(self, positions: Tensor, width: int) -> Any:
        """Return the 4-D mask (B, 1, Q, width): a query sees the slots up to its own position."""
        slot = torch.arange(width, device=positions.device)
        seen = slot <= positions[:, None, :, None]
        if self._window is None or width <= self._window:
            return self._dress(seen)
        near = seen & (slot > positions[:, None, :, None] - self._window)
        if self._types is None or self._types == {"sliding_attention"}:
            return self._dress(near) if self._types is None else {"sliding_attention": self._dress(near)}
        if self._types == {"full_attention"}:
            return self._dress(seen)
        return {"full_attention": self._dress(seen), "sliding_attention": self._dress(near)}

    def _dress(self, seen: Tensor) -> Tensor:
        if not self._additive:
            return seen
        dtype = next(self.loaded.module.parameters()).dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def _buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Group indices so that one forward wastes little on padding and stays below the token budget."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    groups: list[list[int]] = []
    for i in order:
        if groups:
            group = groups[-1]
            longest = min(lengths[i], CHUNK)
            shortest = lengths[group[0]]
            if longest <= max(8, 2 * shortest) and longest * (len(group) + 1) <= BATCH_TOKENS:
                group.append(i)
                continue
        groups.append([i])
    return groups
