"""Forwards of one model over the ragged rows of a :class:`~moco_toolkit_decoding.kv_cache.KVCache`.

Generation, scoring, sessions and joint decoding all read their tokens here, so that what one of them computes is what the
others compute. New tokens of several rows stand side by side, padded on the right; positions and masks are explicit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from moco_core.errors import CapabilityError, EngineOutOfMemory
from moco_toolkit_checkpoints.transformers import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from moco_toolkit_decoding.attention import SHARED
from moco_toolkit_decoding.kv_cache import KVCache, LayerShape, bucket, side_by_side

__all__ = ["CacheProbe", "ModelRunner", "Runnable", "runner_of"]

CHUNK = 4096
"""Columns of one forward: a longer prompt is read in pieces."""

ATTENTION_KINDS = {"full_attention", "sliding_attention"}

SCORE_TOKENS = 1024
"""Positions, padding included, of which one forward returns all scores."""


class Runnable(Protocol):
    """What a runner needs of a loaded model; see :class:`moco_toolkit_checkpoints.local.Loaded`."""

    @property
    def model(self) -> Any: ...

    @property
    def module(self) -> Any: ...

    @property
    def device(self) -> Any: ...

    @property
    def vocab(self) -> int: ...

    @property
    def context_length(self) -> int | None: ...

    def run(self, **inputs: Any) -> Any: ...

    def body(self, **inputs: Any) -> Any: ...


class CacheProbe:
    """What was found out about one module's cache, for all models that run in it: adapters, weights that follow each other.

    ``layers`` is None until the cache was found to serve; that it does not is told to one model alone, whose weights may be
    what made the comparison fail.
    """

    layers: list[LayerShape] | None = None
    plain_head = False
    """Whether the logits are what the output embedding makes of the decoder's last state, with nothing after it."""


class ModelRunner:
    """Reads tokens into a key/value cache and returns what comes next; see the module."""

    cache_class = KVCache
    beyond: int | None = None
    """A position that every forward must reach, for models whose rotary table it decides; see ``two_tables``."""

    def __init__(self, loaded: Runnable, probe: CacheProbe | None = None) -> None:
        self.loaded = loaded
        self.dtype = loaded.module.dtype
        self._probe = probe or CacheProbe()
        self._layers = self._probe.layers
        self._probed = self._layers is not None

    # ---------------------------------------------------------------- what the architecture allows

    def new_cache(self, *, capacity: int = 256) -> KVCache | None:
        """Return an empty cache for this model, or None if its architecture needs another kind.

        Whether a cache serves is not guessed from names: the first time, a ragged batch of three short rows is run both
        ways and compared.
        """
        if not self._probed:
            self._probed = True
            try:
                self._layers = self._layer_shapes()
                if self._layers is not None and not self._agrees():
                    self._layers = None
                if self._layers is not None:
                    self._probe.plain_head = self._head_is_plain()
            except EngineOutOfMemory:
                self._probed = False
                raise
            except Exception:  # an architecture that takes no ready-made mask, or keeps other state
                self._layers = None
            self._probe.layers = self._layers
        if self._layers is None:
            return None
        return self.cache_class(self._layers, self.dtype, self.loaded.device, capacity=capacity)

    def cache(self, *, capacity: int = 256) -> KVCache:
        """Return an empty cache, or raise CapabilityError: what works token by token needs one that rolls back."""
        found = self.new_cache(capacity=capacity)
        if found is None:
            raise CapabilityError(
                f"model {self.loaded.model.name!r} cannot work token by token: {type(self.loaded.module).__name__} keeps other "
                "state than keys and values of full or sliding attention, or takes no mask; choose another architecture"
            )
        return found

    @property
    def plain_head(self) -> bool:
        """Whether :meth:`prompt` can tell the next token's logits; known once a cache was asked for."""
        return self._probe.plain_head

    def _layer_shapes(self) -> list[LayerShape] | None:
        config = self.loaded.module.config
        if set(getattr(config.get_text_config(), "layer_types", None) or ATTENTION_KINDS) - ATTENTION_KINDS:
            return None
        cache = DynamicCache(config=config)
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.loaded.device)
        self.loaded.run(input_ids=ids, past_key_values=cache, use_cache=True)
        shapes = []
        layer: Any
        for layer in cache.layers:
            if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) or layer.keys.ndim != 4:
                return None
            (_, heads, _, width), (_, value_heads, _, value_width) = layer.keys.shape, layer.values.shape
            window = layer.sliding_window if isinstance(layer, DynamicSlidingWindowLayer) else None
            shapes.append(LayerShape(heads, width, value_heads, value_width, window))
        return shapes or None

    def _head_is_plain(self) -> bool:
        """Compare the head on the decoder's own output with the module's logits: a scale or a cap after it shows."""
        head = self.loaded.module.get_output_embeddings()
        if head is None:
            return False
        ids = torch.arange(4, device=self.loaded.device)[None] % self._rows_of_embedding()
        want = self.loaded.run(input_ids=ids, use_cache=False).logits
        state = getattr(self.loaded.body(input_ids=ids, use_cache=False), "last_hidden_state", None)
        if state is None:
            return False
        with torch.inference_mode():
            got = head(state)
        return got.shape == want.shape and torch.allclose(got, want, rtol=1e-5, atol=1e-6 * float(want.abs().max()))

    def _rows_of_embedding(self) -> int:
        return int(self.loaded.module.get_input_embeddings().weight.shape[0])

    def _agrees(self) -> bool:
        assert self._layers is not None
        generator = torch.Generator().manual_seed(0)
        windows = [s.window for s in self._layers if s.window and s.window < 64]
        # GPT-Neo cuts its local windows out of a mask of its own, counted from the cache's last column, in every row
        own = getattr(self.loaded.module.config, "window_size", None)
        windows += [own] if isinstance(own, int) and own <= 1024 else []
        longest = max([8, *(w + 5 for w in windows)])
        longest = min(longest, self.loaded.context_length or longest)
        rows = [
            torch.randint(self._rows_of_embedding(), (max(1, n),), generator=generator).tolist()
            for n in (longest // 3, longest, longest // 2)
        ]
        want = []
        for row in rows:
            ids = torch.tensor([row], device=self.loaded.device)
            want.append(self.loaded.run(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1])
        plain = torch.stack(want)[:, : self.loaded.vocab].float()  # rows of the head above the tokenizer's are padding
        cache = KVCache(self._layers, self.dtype, self.loaded.device)
        self.prefill(cache, cache.append(3), [row[:-1] for row in rows])
        got = self.advance(cache, torch.tensor([row[-1] for row in rows], device=self.loaded.device))
        scale = plain.abs().max().clamp(min=1.0)
        tolerance = 1e-3 if self.dtype == torch.float32 else 6e-2
        return bool((got - plain).abs().max() <= tolerance * scale)

    # ---------------------------------------------------------------- reading

    def prefill(self, cache: KVCache, rows: Sequence[int], chunks: Sequence[Sequence[int]]) -> None:
        """Append ``chunks[i]``, which may be empty, to row ``rows[i]``."""
        self.read(cache, rows, chunks, last=False)

    def prompt(self, cache: KVCache, rows: Sequence[int], chunks: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Append chunks of a token at least; return what comes next, for models with a plain head: float32 logits (B, vocab)
        and the decoder's states that they come from, (B, H)."""
        states = self.read(cache, rows, chunks)
        assert states is not None
        return self.head(states), states

    def head(self, states: Tensor) -> Tensor:
        """Return what a plain head says of the decoder's last states: (B, H) -> float32 logits (B, vocab)."""
        with torch.inference_mode():
            return self.loaded.module.get_output_embeddings()(states)[:, : self.loaded.vocab].float()  # type: ignore[no-any-return]

    def advance(self, cache: KVCache, tokens: Tensor) -> Tensor:
        """Append one token to every row: int64 (B,) -> float32 logits (B, vocab)."""
        return self._step(cache, range(cache.count), tokens)[0]

    def feed(
        self, cache: KVCache, rows: Sequence[int], chunks: Sequence[Sequence[int]], *, hidden: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Append ``chunks[i]`` (at least one token) to row ``rows[i]``; return what comes next.

        Returns float32 logits (B, vocab) in the order of ``rows`` and, if asked for, hidden states (B, H). Rows of similar
        chunk length are read together.
        """
        if max(map(len, chunks)) > 1 and not self.plain_head:
            # only a whole forward knows the logits: the last tokens get one of their own
            for group in side_by_side(cache, rows, chunks):
                self.prefill(cache, [rows[i] for i in group], [chunks[i][:-1] for i in group])
            chunks = [chunk[-1:] for chunk in chunks]
        if max(map(len, chunks)) == 1:
            tokens = torch.tensor([chunk[0] for chunk in chunks]).to(self.loaded.device)
            return self._step(cache, rows, tokens, hidden=hidden)
        groups = side_by_side(cache, rows, chunks)
        parts = [self.prompt(cache, [rows[i] for i in group], [chunks[i] for i in group]) for group in groups]
        order = torch.tensor([i for group in groups for i in group], device=parts[0][0].device).argsort()
        logits, states = (torch.cat(both)[order] for both in zip(*parts, strict=True))
        return logits, states if hidden else None

    def feed_all(
        self, cache: KVCache, rows: Sequence[int], chunks: Sequence[Sequence[int]], *, hidden: bool = False
    ) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """Append chunks and yield ``(i, logits, hidden)`` of every row as it is read: float32 (len(chunks[i]), vocab or H).

        Unlike :meth:`feed` this holds the scores of every position, so rows come in small groups. A chunk longer than one
        forward comes in several pieces, in order.
        """
        for group in bucket(chunks, SCORE_TOKENS):
            group.sort(key=lambda i: rows[i])
            ends = {i: cache.lengths[rows[i]] + len(chunks[i]) for i in group}
            width = max(len(chunks[i]) for i in group)
            for start in range(0, width, SCORE_TOKENS):
                there = [i for i in group if len(chunks[i]) > start]
                pieces = [chunks[i][start : start + SCORE_TOKENS] for i in there]
                logits, states = self.extend(
                    cache, [rows[i] for i in there], pieces, hidden=hidden, ends=[ends[i] for i in there]
                )
                for place, (i, piece) in enumerate(zip(there, pieces, strict=True)):
                    yield i, logits[place, : len(piece)], None if states is None else states[place, : len(piece)]

    def extend(
        self,
        cache: KVCache,
        rows: Sequence[int],
        chunks: Sequence[Sequence[int]],
        *,
        hidden: bool = False,
        ends: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Append chunks in one forward and return all scores, padded on the right: float32 (B, Q, vocab), and (B, Q, H).

        ``ends`` are the lengths that the rows will have when all of their text is read, where more pieces follow.
        """
        past = [cache.lengths[r] for r in rows]
        grown = [p + len(c) for p, c in zip(past, chunks, strict=True)]
        ids, positions, columns = self._places(past, chunks)
        queries = ids.shape[1]
        width = max(past) + queries  # fewer columns would change the last bits of scores that were stored
        cache.reserve(cache.count, width + 1)
        ids, positions, turned, columns = self._reaching(ids, positions, columns, max(grown))
        cache.aim(rows, columns, width, even=not self.beyond and all(len(c) == queries for c in chunks))
        out = self.loaded.run(
            input_ids=ids,
            attention_mask=self.mask(cache, positions, width),
            position_ids=turned,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=0,
            output_hidden_states=hidden,
        )
        cache.grow(rows, grown)
        logits: Tensor = out.logits[:, :queries, : self.loaded.vocab].float()
        return logits, out.hidden_states[-1][:, :queries] if hidden else None

    def _step(
        self, cache: KVCache, rows: Sequence[int], tokens: Tensor, *, hidden: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Append one token to each of ``rows``; return float32 logits (B, vocab) and, if asked for, hidden states (B, H)."""
        past = [cache.lengths[r] for r in rows]
        width = max(past) + 1
        cache.reserve(cache.count, width)
        positions = torch.tensor(past, dtype=torch.long).to(self.loaded.device).unsqueeze(-1)
        cache.aim(rows, positions, width, even=True)
        out = self.loaded.run(
            input_ids=tokens.unsqueeze(-1),
            attention_mask=self.mask(cache, positions, width),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            output_hidden_states=hidden,
        )
        cache.grow(rows, [p + 1 for p in past])
        logits: Tensor = out.logits[..., : self.loaded.vocab].float()
        return logits[:, -1], out.hidden_states[-1][:, -1] if hidden else None

    def read(
        self, cache: KVCache, rows: Sequence[int], chunks: Sequence[Sequence[int]], *, last: bool = True
    ) -> Tensor | None:
        """Append chunks without the head; also return the decoder's state at each row's last token, (B, H), if asked for."""
        past, lengths = [cache.lengths[r] for r in rows], [len(c) for c in chunks]
        ends = [p + n for p, n in zip(past, lengths, strict=True)]
        width, states = max(lengths), None
        if width == 0:
            return None
        new = not any(past)
        ids, positions, columns = self._places(past, chunks)
        cache.reserve(cache.count, max(ends) + 1)
        for start in range(0, width, CHUNK):
            stop = min(width, start + CHUNK)
            if new and start == 0:
                # the padding on the right cannot be seen by any real token, so causality is all the masking needed
                places, mask = torch.arange(stop, device=ids.device).expand(len(rows), stop), None
                piece, _, places, _ = self._reaching(ids[:, :stop], places, places, stop)
                cache.aim(rows, None, piece.shape[1])
            else:
                places, seen = positions[:, start:stop], max(min(p + stop, e) for p, e in zip(past, ends, strict=True))
                piece, shown, places, into = self._reaching(ids[:, start:stop], places, columns[:, start:stop], max(ends))
                cache.aim(rows, into, seen)
                mask = self.mask(cache, shown, seen)
            out = self.loaded.body(
                input_ids=piece,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
            )
            ending = [i for i, n in enumerate(lengths) if start < n <= stop] if last else []
            if ending:
                hidden = out.last_hidden_state
                if states is None:
                    states = hidden.new_empty(len(rows), hidden.shape[-1])
                there = torch.tensor(ending, device=ids.device)
                states[there] = hidden[there, torch.tensor([lengths[i] - 1 - start for i in ending], device=ids.device)]
        cache.grow(rows, ends)
        return states

    # ---------------------------------------------------------------- inputs

    def _places(self, past: Sequence[int], chunks: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids, positions and columns of chunks after ``past`` tokens, each (B, Q).

        Padding stands at the position of its row's last token, which a model is sure to have, and is written to the column
        behind all rows, which nobody reads.
        """
        counts = torch.tensor([len(c) for c in chunks])[:, None]
        ids = torch.zeros(len(chunks), int(counts.max()), dtype=torch.long)
        for i, chunk in enumerate(chunks):
            ids[i, : len(chunk)] = torch.tensor(chunk, dtype=torch.long)
        start, place = torch.tensor(past)[:, None], torch.arange(ids.shape[1])
        ends = start + counts
        positions = torch.minimum(start + place, (ends - 1).clamp(min=0))
        columns = torch.where(place < counts, positions, int(ends.max()))
        device = self.loaded.device
        return ids.to(device), positions.to(device), columns.to(device)

    def _reaching(
        self, ids: Tensor, positions: Tensor, columns: Tensor, unread: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Add padding at the position :attr:`beyond`, if there is one, so that the rotary table of such lengths serves.

        Returns ids, positions as the mask has them and as they turn, and columns; ``unread`` is one that nobody reads.
        """
        if not self.beyond:
            return ids, positions, positions, columns
        one = ids.new_zeros(len(ids), 1)
        shown, turned = torch.cat([positions, positions[:, -1:]], -1), torch.cat([positions, one + self.beyond], -1)
        return torch.cat([ids, one], -1), shown, turned, torch.cat([columns, one + unread], -1)

    def mask(self, cache: KVCache, positions: Tensor, width: int) -> Any:
        """Return the ready-made attention mask (B, 1, Q, width): a row sees its own columns up to the query's position."""
        columns = torch.arange(width, device=positions.device)
        query = positions[:, None, :, None]
        seen = columns <= query
        if cache.windows == {None}:
            return self._form(seen)
        near = next(self._form(seen & (query - columns < w)) for w in cache.windows if w is not None)
        # models that mix layer kinds take one mask per kind
        return {"full_attention": self._form(seen), "sliding_attention": near} if None in cache.windows else near

    def _form(self, seen: Tensor) -> Tensor:
        """Write a mask as the model's attention takes it: as it is, or as numbers to add."""
        if self.loaded.module.config._attn_implementation in ("sdpa", SHARED):
            return seen
        out = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device)
        return out.masked_fill_(~seen, torch.finfo(self.dtype).min)


def runner_of(loaded: Any) -> ModelRunner:
    """Return a loaded model's runner: the engine's own where it has one, which knows what was found out before."""
    found = getattr(loaded, "runner", None)
    return found if isinstance(found, ModelRunner) else ModelRunner(loaded)
