"""Prompts read in blocks, and the keys and values of blocks kept for prompts that begin alike.

What an attention kernel rounds depends on how many columns it reads, what a matrix product rounds on whether it has a few
rows or more. So tokens are read in blocks of 16 (the last one is padded), against all columns up to the next multiple of 64.
In float32 on a CPU a block then has the same bits whichever prompt it begins, however long that is, and whatever is read
beside it, and a prompt that continues kept blocks is read as if all of it had been read anew.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor

from moco_toolkit_decoding.kv_cache import KVCache
from moco_toolkit_decoding.runner import CHUNK, ModelRunner

__all__ = ["BLOCK", "PrefixStore", "read_blocks"]

BLOCK = 16
"""Tokens that are read, kept and found together."""

COLUMNS = 64
"""Tokens of one forward of a row: it ends at a multiple of this, and so do the columns it attends to."""

Pieces = list[tuple[Tensor, Tensor]]


def read_blocks(
    runner: ModelRunner, cache: KVCache, rows: Sequence[int], prompts: Sequence[Sequence[int]]
) -> Tensor | None:
    """Read prompts into rows that hold none or some of their first blocks; return the states at their ends, (B, H).

    None if there is nothing to read. Pieces of equal size that end at the same column are read together.
    """
    longest = max(map(len, prompts))
    device, states = runner.loaded.device, None
    # room for the padding and the last columns, which nobody reads and the reply overwrites
    cache.reserve(cache.count, _up(longest, COLUMNS))
    for width in range(COLUMNS, _up(longest, COLUMNS) + 1, COLUMNS):
        waiting = []
        for i, (row, ids) in enumerate(zip(rows, prompts, strict=True)):
            start, stop = cache.lengths[row], min(len(ids), width)
            if start < stop:
                waiting.append((_up(stop - start, BLOCK), i))
        for size, there in _groups(waiting):
            starts = torch.tensor([cache.lengths[rows[i]] for i in there])[:, None]
            stops = torch.tensor([min(len(prompts[i]), width) for i in there])[:, None]
            tokens = torch.zeros(len(there), size, dtype=torch.long)
            for place, (i, start, stop) in enumerate(zip(there, starts.flatten(), stops.flatten(), strict=True)):
                tokens[place, : stop - start] = torch.tensor(prompts[i][start:stop], dtype=torch.long)
            columns = starts + torch.arange(size)
            # padding stands at its row's last position, which a model is sure to have
            positions = torch.minimum(columns, stops - 1).to(device)
            cache.aim([rows[i] for i in there], columns.to(device), width)
            out = runner.loaded.body(
                input_ids=tokens.to(device),
                attention_mask=runner.mask(cache, positions, width),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            hidden = out.last_hidden_state
            if states is None:
                states = hidden.new_empty(len(rows), hidden.shape[-1])
            for place, i in enumerate(there):
                start, stop = cache.lengths[rows[i]], min(len(prompts[i]), width)
                if stop == len(prompts[i]):
                    states[i] = hidden[place, stop - 1 - start]
                cache.lengths[rows[i]] = stop
                cache.tokens += stop - start
    return states


@attrs.define(eq=False)
class PrefixStore:
    """Keys and values of blocks, at most ``limit`` bytes of them; the longest unused leave first. Safe to use from threads.

    A block is known by the model that read it and by all tokens up to its end: models that differ in anything, an adapter or a
    merged weight, share nothing. ``saved`` and ``found`` count tokens put in and taken out, ``size`` the bytes that are kept.
    """

    limit: int
    saved: int = 0
    found: int = 0
    size: int = 0
    _blocks: OrderedDict[bytes, Pieces] = attrs.field(factory=OrderedDict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def __len__(self) -> int:
        return len(self._blocks)

    def first(self, model: str, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Return which prompts to read first: all but those for which an earlier one spares a whole forward."""
        out, claimed = [], set[bytes]()
        with self._lock:
            for index, ids in enumerate(prompts):
                unknown = [key for key in _keys(model, ids) if key not in self._blocks]
                if len(unknown) < COLUMNS // BLOCK or unknown[COLUMNS // BLOCK - 1] not in claimed:
                    claimed.update(unknown)
                    out.append(index)
        return out

    def load(self, model: str, cache: KVCache, row: int, ids: Sequence[int]) -> int:
        """Fill an empty row with the known first blocks of a prompt; return how many tokens that are.

        The last token is always left to be read: what comes next is known from reading it.
        """
        pieces: list[Pieces] = []
        with self._lock:
            for key in _keys(model, ids[: len(ids) - 1]):
                block = self._blocks.get(key)
                if block is None:
                    break
                self._blocks.move_to_end(key)
                pieces.append(block)
            self.found += len(pieces) * BLOCK
        if pieces:
            kinds = [tuple(zip(*kind, strict=True)) for kind in zip(*pieces, strict=True)]
            cache.extend(row, [(torch.cat(keys, 2), torch.cat(values, 2)) for keys, values in kinds])
        return len(pieces) * BLOCK

    def save(self, model: str, cache: KVCache, row: int, ids: Sequence[int]) -> None:
        """Keep the whole blocks of a prompt that was read into a row."""
        for number, key in enumerate(_keys(model, ids)):
            with self._lock:
                if key in self._blocks:
                    self._blocks.move_to_end(key)
                    continue
            block = cache.extract(row, number * BLOCK, (number + 1) * BLOCK)
            size = _size(block)
            if size > self.limit:
                return
            with self._lock:
                if key not in self._blocks:
                    self.size += size
                    self.saved += BLOCK
                self._blocks[key] = block
                while self.size > self.limit:
                    self.size -= _size(self._blocks.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._blocks.clear()
            self.size = 0


def _groups(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, list[int]]]:
    """Yield the members of every size, as many as one forward takes, largest size first."""
    for size in sorted({size for size, _ in sizes}, reverse=True):
        members = [i for other, i in sizes if other == size]
        most = max(1, CHUNK // size)
        for at in range(0, len(members), most):
            yield size, members[at : at + most]


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _keys(model: str, ids: Sequence[int]) -> list[bytes]:
    """Return the names of the whole blocks of a prompt: each depends on everything before it."""
    key, out = hashlib.sha256(model.encode()).digest(), []
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        key = hashlib.sha256(key + array("q", ids[start : start + BLOCK]).tobytes()).digest()
        out.append(key)
    return out


def _size(block: Pieces) -> int:
    return sum(t.numel() * t.element_size() for pair in block for t in pair)
