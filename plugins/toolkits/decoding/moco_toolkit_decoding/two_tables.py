"""Models with two rotary tables (longrope: Phi-3 and Phi-4 with long context), rows on either side of the switch apart.

Such a model turns all positions by one table as long as the text has no more than so many tokens, and by another beyond. The
library decides by the largest position of a forward, for all its rows and whatever they have cached. Here each forward has
rows of one side; a row that crosses the switch, in either direction, is read again as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from moco_toolkit_decoding.kv_cache import KVCache
from moco_toolkit_decoding.runner import CacheProbe, ModelRunner, Runnable

__all__ = ["TwoTableCache", "TwoTableRunner", "switch_of"]


def switch_of(config: Any) -> int | None:
    """Return how many tokens a model reads by the first of two rotary tables; None if it has one."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    first = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None)
    return int(first) if first else None


class TwoTableCache(KVCache):
    """A cache that knows what its rows have read (``ids[r]``, up to the row's length) and by which table (``far[r]``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ids: list[list[int]] = []
        self.far: list[bool] = []

    def append(self, rows: int) -> range:
        self.ids += [[] for _ in range(rows)]
        self.far += [False] * rows
        return super().append(rows)

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        super().copy(sources, targets)
        for source, target in zip(sources, targets, strict=True):
            self.ids[target], self.far[target] = list(self.ids[source]), self.far[source]

    def drop(self, gone: Sequence[int]) -> list[int]:
        order = super().drop(gone)
        self.ids, self.far = [self.ids[i] for i in order], [self.far[i] for i in order]
        return order


class TwoTableRunner(ModelRunner):
    """See the module. ``switch`` is the largest number of tokens that the first table serves."""

    cache_class = TwoTableCache

    def __init__(self, loaded: Runnable, probe: CacheProbe | None, switch: int) -> None:
        super().__init__(loaded, probe)
        self.switch = switch

    def read(
        self, cache: KVCache, rows: Sequence[int], chunks: Sequence[Sequence[int]], *, last: bool = True
    ) -> Tensor | None:
        def read(there: Sequence[int], whole: Sequence[Sequence[int]]) -> tuple[Tensor | None, None]:
            return super(TwoTableRunner, self).read(cache, there, whole, last=last), None

        parts = self._apart(cache, rows, chunks, read)
        return self._joined(parts)[0] if last else None

    def advance(self, cache: KVCache, tokens: Tensor) -> Tensor:
        return self.feed(cache, range(cache.count), [[token] for token in tokens.tolist()])[0]

    def feed(
        self, cache: KVCache, rows: Sequence[int], chunks: Sequence[Sequence[int]], *, hidden: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        def read(there: Sequence[int], whole: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
            return super(TwoTableRunner, self).feed(cache, there, whole, hidden=hidden)

        return self._joined(self._apart(cache, rows, chunks, read))

    def extend(
        self,
        cache: KVCache,
        rows: Sequence[int],
        chunks: Sequence[Sequence[int]],
        *,
        hidden: bool = False,
        ends: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        given, width = {row: len(chunk) for row, chunk in zip(rows, chunks, strict=True)}, max(map(len, chunks))

        def read(there: Sequence[int], whole: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
            scores = super(TwoTableRunner, self).extend(cache, there, whole, hidden=hidden)
            # what was read again stands in front
            skips = [len(chunk) - given[row] for row, chunk in zip(there, whole, strict=True)]
            logits, states = (None if part is None else _shifted(part, skips, width) for part in scores)
            assert logits is not None
            return logits, states

        return self._joined(self._apart(cache, rows, chunks, read, ends))

    def _apart(
        self,
        cache: KVCache,
        rows: Sequence[int],
        chunks: Sequence[Sequence[int]],
        read: Callable[[Sequence[int], Sequence[Sequence[int]]], Any],
        ends: Sequence[int] | None = None,
    ) -> list[tuple[list[int], Any]]:
        """Return what ``read`` makes of the rows of each side, with their indices; a row that changes sides is read anew.

        ``ends`` are the lengths that decide, where they are not those after the chunks.
        """
        if self.beyond is not None or not isinstance(cache, TwoTableCache):  # inside of one side already
            return [(list(range(len(rows))), read(rows, chunks))]
        sides: dict[bool, list[int]] = {}
        whole = [list(chunk) for chunk in chunks]
        for i, (row, chunk) in enumerate(zip(rows, chunks, strict=True)):
            past = cache.lengths[row]
            far = (past + len(chunk) if ends is None else ends[i]) > self.switch
            if past and far != cache.far[row]:
                whole[i] = [*cache.ids[row][:past], *chunk]
                cache.rollback(row, 0)
            cache.ids[row][past:] = chunk
            cache.far[row] = far
            sides.setdefault(far, []).append(i)
        out = []
        for far, members in sides.items():
            self.beyond = self.switch if far else 0
            try:
                out.append((members, read([rows[i] for i in members], [whole[i] for i in members])))
            finally:
                self.beyond = None
        return out

    @staticmethod
    def _joined(parts: Sequence[tuple[list[int], tuple[Tensor, Tensor | None]]]) -> tuple[Tensor, Tensor | None]:
        """Return scores and states of all rows in their order."""
        if len(parts) == 1:
            return parts[0][1]
        order = torch.tensor([i for members, _ in parts for i in members]).argsort().to(parts[0][1][0].device)
        logits = torch.cat([scores for _, (scores, _) in parts])[order]
        seen = [states for _, (_, states) in parts if states is not None]
        return logits, torch.cat(seen)[order] if seen else None


def _shifted(scores: Tensor, again: Sequence[int], width: int) -> Tensor:
    """Leave out the positions in front that were read again; the rest stands on the left of ``width`` columns."""
    out = scores.new_zeros(scores.shape[0], width, scores.shape[-1])
    for i, skip in enumerate(again):
        kept = scores[i, skip : skip + width]
        out[i, : len(kept)] = kept
    return out
