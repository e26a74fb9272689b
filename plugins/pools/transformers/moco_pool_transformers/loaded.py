"""One model in memory, ready to run: what :class:`moco_core.local.Loaded` promises."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from moco_core.errors import EngineOutOfMemory
from moco_core.local import Output, Rendered
from moco_core.models import Model
from moco_core.types import FinishReason, Generation, Message, Usage
from moco_pool_transformers.slab import LayerShape, Slab
from moco_toolkit_checkpoints.reasoning import split
from moco_toolkit_checkpoints.rendering import Renderer
from moco_toolkit_decoding.sampling import sampling_device

__all__ = ["LoadedModel", "SlabProbe", "memory_errors"]

ATTENTION_KINDS = {"full_attention", "sliding_attention"}


@contextmanager
def memory_errors(name: str) -> Iterator[None]:
    """Turn every way in which torch says "out of memory" into EngineOutOfMemory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineOutOfMemory(f"{name}: out of device memory") from error
    except MemoryError as error:
        raise EngineOutOfMemory(f"{name}: out of memory") from error
    except RuntimeError as error:
        text = str(error)
        if "can't allocate memory" in text or "out of memory" in text or "Cannot allocate memory" in text:
            raise EngineOutOfMemory(f"{name}: out of memory") from error
        raise


class SlabProbe:
    """What was found out about one module's cache, for all models that run in it: adapters, weights that follow each other.

    ``layers`` is None until the slab was found to serve; that it does not is told to one model alone, whose weights may be
    what made the comparison fail.
    """

    layers: list[LayerShape] | None = None
    plain_head = False
    """Whether the logits are what the output embedding makes of the decoder's last state, with nothing after it."""


class LoadedModel:
    """See :class:`moco_core.local.Loaded`."""

    def __init__(
        self,
        model: Model,
        module: Any,
        renderer: Renderer,
        *,
        tags: Sequence[tuple[str, str]],
        ends: Sequence[int] = (),
        activate: Callable[[], None] | None = None,
        probe: SlabProbe | None = None,
    ) -> None:
        self.model = model
        self.module = module
        self.renderer = renderer
        self.tokenizer = renderer.tokenizer
        self.tags = tags
        self._activate = activate
        self.scratch: MutableMapping[Hashable, Any] = {}
        self.config = module.config.get_text_config()
        self.device = next(module.parameters()).device
        self.sampling_device = sampling_device(self.device)
        self.dtype = module.dtype
        self.context_length = renderer.context
        self.vocab = max([len(self.tokenizer) - 1, *self.tokenizer.added_tokens_decoder]) + 1
        self.end_ids = renderer.end_ids(ends)
        special = {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        self._special_tags = [pair for pair in tags if special & set(pair)]
        self._probe = probe or SlabProbe()
        self._layers = self._probe.layers
        self._probed = self._layers is not None

    # ---------------------------------------------------------------- text

    def render(self, messages: Sequence[Message], *, reserve: int = 0) -> Rendered:
        return self.renderer.render(messages, reserve)

    def render_input(self, given: Mapping[str, Any], *, reserve: int = 0) -> Rendered:
        return self.renderer.render_input(given, reserve)

    def encode(self, text: str) -> list[int]:
        return self.renderer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.renderer.decode(ids)

    def continuation_ids(self, prompt: Rendered, continuation: str) -> tuple[int, list[int]]:
        return self.renderer.continuation_ids(prompt, continuation)

    def generation(
        self,
        prompt: Rendered,
        ids: Sequence[int],
        logprobs: Sequence[float],
        finish: FinishReason,
        *,
        text: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Generation:
        said = ids[:-1] if finish == "eos" and ids and ids[-1] in self.end_ids else ids
        if text is None:
            text = self._decode_with_tags(said) if self._special_tags else self.decode(said)
        reasoning, answer = split(text, self.tags, prompt.opened)
        return Generation(
            text=answer,
            reasoning=reasoning,
            finish_reason=finish,
            token_ids=tuple(ids),
            token_logprobs=tuple(logprobs),
            usage=Usage(len(prompt.ids), len(ids)),
            meta={**prompt.meta, **(meta or {})},
        )

    def _decode_with_tags(self, ids: Sequence[int]) -> str:
        """Decode without special tokens, except reasoning tags that are special tokens themselves."""
        keep = {self.tokenizer.convert_tokens_to_ids(t): t for pair in self._special_tags for t in pair}
        out: list[str] = []
        piece: list[int] = []
        for i in ids:
            if i in keep:
                out += [self.decode(piece), keep[i]]
                piece = []
            else:
                piece.append(i)
        return "".join([*out, self.decode(piece)])

    # ---------------------------------------------------------------- forward

    def activate(self) -> None:
        """Select this model's adapter, or none, on the shared base."""
        if self._activate is not None:
            self._activate()

    def new_cache(self) -> DynamicCache:
        if self._hybrid:  # recurrent layers need their own kinds of cache layer; these cannot be cropped
            return DynamicCache(config=self.module.config)
        return DynamicCache()

    @property
    def _hybrid(self) -> bool:
        kinds = set(getattr(self.config, "layer_types", None) or ATTENTION_KINDS)
        return bool(kinds - ATTENTION_KINDS - {"chunked_attention"})

    @property
    def supports_rollback(self) -> bool:
        return not self._hybrid

    def forward(
        self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, *, keep: int = 1, hidden: bool = False
    ) -> Output:
        out = self.run(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
            output_hidden_states=hidden,
        )
        logits = out.logits.float()
        last = out.hidden_states[-1] if hidden else None
        if keep == 1:
            return Output(logits=logits[:, -1], hidden=None if last is None else last[:, -1])
        return Output(logits=logits, hidden=last)

    def run(self, **inputs: Any) -> Any:
        """Call the module itself, with this model's adapter."""
        self.activate()
        with torch.inference_mode(), memory_errors(self.model.name):
            return self.module(**inputs)

    # ---------------------------------------------------------------- the slab

    def slab(self) -> Slab | None:
        """Return an empty slab for this model, or None if its architecture needs another cache.

        Whether the slab serves is not guessed from names: the first time, a ragged batch of three short rows is run both
        ways and compared.
        """
        if not self._probed:
            self._probed = True
            try:
                self._layers = self._layer_shapes()
                if self._layers is not None and not self._slab_agrees():
                    self._layers = None
                if self._layers is not None:
                    self._probe.plain_head = self._head_is_plain()
            except EngineOutOfMemory:
                self._probed = False
                raise
            except Exception:  # an architecture that takes no ready-made mask, or keeps other state
                self._layers = None
            self._probe.layers = self._layers
        return None if self._layers is None else Slab(self._layers, self.dtype, self.device)

    def _layer_shapes(self) -> list[LayerShape] | None:
        kinds = getattr(self.config, "layer_types", None)
        window = getattr(self.config, "sliding_window", None)
        if kinds is not None and set(kinds) - ATTENTION_KINDS:
            return None
        cache = DynamicCache(config=self.module.config)
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.device)
        self.run(input_ids=ids, past_key_values=cache, use_cache=True)
        shapes = []
        layer: Any
        for layer in cache.layers:
            if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) or layer.keys.ndim != 4:
                return None
            slides = isinstance(layer, DynamicSlidingWindowLayer)
            shapes.append(
                LayerShape(
                    layer.keys.shape[1],
                    layer.keys.shape[3],
                    layer.values.shape[1],
                    layer.values.shape[3],
                    int(window) if slides and window else None,
                )
            )
        return shapes or None

    def _head_is_plain(self) -> bool:
        """Compare the head on the decoder's own output with the module's logits: a scale or a cap after it shows."""
        head = self.module.get_output_embeddings()
        if head is None:
            return False
        ids = torch.arange(4, device=self.device)[None] % int(self.module.get_input_embeddings().weight.shape[0])
        want = self.run(input_ids=ids, use_cache=False).logits
        state = getattr(self.body(input_ids=ids, use_cache=False), "last_hidden_state", None)
        if state is None:
            return False
        with torch.inference_mode():
            got = head(state)
        return got.shape == want.shape and torch.allclose(got, want, rtol=1e-5, atol=1e-6 * float(want.abs().max()))

    def _slab_agrees(self) -> bool:
        assert self._layers is not None
        generator = torch.Generator().manual_seed(0)
        size = int(self.module.get_input_embeddings().weight.shape[0])
        longest = max([8, *(s.window + 5 for s in self._layers if s.window and s.window < 64)])
        if self.context_length is not None:
            longest = min(longest, self.context_length)
        lengths = (max(1, longest // 3), longest, max(1, longest // 2))
        rows = [torch.randint(size, (n,), generator=generator).to(self.device) for n in lengths]
        alone = [self.run(input_ids=r[None], use_cache=False, logits_to_keep=1).logits[0, -1] for r in rows]
        want = torch.stack(alone)[:, : self.vocab]  # rows of the head above the tokenizer's are padding
        slab = Slab(self._layers, self.dtype, self.device)
        self.prefill(slab, [r[:-1].tolist() for r in rows])
        got = self.advance(slab, torch.stack([r[-1] for r in rows]))
        scale = want.float().abs().max().clamp(min=1.0)
        tolerance = 1e-3 if self.dtype == torch.float32 else 6e-2
        return bool((got - want.float()).abs().max() <= tolerance * scale)

    @property
    def plain_head(self) -> bool:
        """Whether :meth:`prefill` can tell the next token's logits; known once :meth:`slab` was asked."""
        return self._probe.plain_head

    def prefill(self, slab: Slab, rows: Sequence[Sequence[int]], chunk: int = 4096) -> slice:
        """Append rows to the slab and run them, right-padded together; rows may be empty. Returns their range."""
        return self._prefill(slab, rows, chunk, last=False)[0]

    def prompt(self, slab: Slab, rows: Sequence[Sequence[int]], chunk: int = 4096) -> Tensor:
        """Like :meth:`prefill`, but return what comes next: float32 logits (B, vocab). Rows have a token at least."""
        _, states = self._prefill(slab, rows, chunk, last=True)
        assert states is not None
        with torch.inference_mode():
            logits: Tensor = self.module.get_output_embeddings()(states)[:, : self.vocab].float()
        return logits

    def _prefill(
        self, slab: Slab, rows: Sequence[Sequence[int]], chunk: int, *, last: bool
    ) -> tuple[slice, Tensor | None]:
        """Run new rows; also return the decoder's state at each row's last token, (B, H), if asked for."""
        lengths = [len(r) for r in rows]
        span = slab.append(lengths)
        width = max(lengths, default=0)
        states: Tensor | None = None
        if width == 0:
            return span, states
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        ids = ids.to(self.device)
        slab.reserve(slab.count, width)
        places = torch.arange(width, device=self.device).expand(len(rows), width)
        for start in range(0, width, chunk):
            stop = min(width, start + chunk)
            part = places[:, start:stop]
            if start == 0:
                slab.aim_new(span, stop)
                mask: Any = None
            else:
                slab.aim(span, part, stop)
                mask = self._mask(slab, part, stop)
            # the padding on the right cannot be seen by any real token, so causality is all the masking needed
            out = self.body(
                input_ids=ids[:, start:stop],
                attention_mask=mask,
                position_ids=part,
                past_key_values=slab,
                use_cache=True,
            )
            ending = [i for i, n in enumerate(lengths) if start < n <= stop] if last else []
            if ending:
                hidden = out.last_hidden_state
                if states is None:
                    states = hidden.new_empty(len(rows), hidden.shape[-1])
                rows_there = torch.tensor(ending, device=self.device)
                columns = torch.tensor([lengths[i] - 1 - start for i in ending], device=self.device)
                states[rows_there] = hidden[rows_there, columns]
        return span, states

    def advance(self, slab: Slab, tokens: Tensor) -> Tensor:
        """Feed one token to every row: int64 (B,) -> float32 logits (B, vocab)."""
        return self.extend(slab, slice(0, slab.count), tokens.unsqueeze(-1), keep=1)[:, -1]

    def extend(self, slab: Slab, span: slice, ids: Tensor, *, keep: int, counts: Sequence[int] | None = None) -> Tensor:
        """Feed Q tokens to the rows of ``span``, right-padded to ids (B, Q) where ``counts`` gives the real numbers.

        Returns float32 logits (B, 1, vocab) or, with ``keep=0``, (B, Q, vocab).
        """
        queries = ids.shape[1]
        past = slab.lengths[span]
        width = max(past) + queries
        slab.reserve(slab.count, width)
        start = torch.tensor(past, dtype=torch.long).to(self.device).unsqueeze(-1)
        positions = start if queries == 1 else start + torch.arange(queries, device=self.device)
        slab.aim(span, positions, width)
        out = self.run(
            input_ids=ids,
            attention_mask=self._mask(slab, positions, width),
            position_ids=positions,
            past_key_values=slab,
            use_cache=True,
            logits_to_keep=keep,
        )
        grown = counts or [queries] * len(past)
        slab.lengths[span] = [p + c for p, c in zip(past, grown, strict=True)]
        logits: Tensor = out.logits[..., : self.vocab].float()
        return logits

    def body(self, **inputs: Any) -> Any:
        """Run the decoder without the head on top of it."""
        self.activate()
        module = self.module.get_base_model() if hasattr(self.module, "get_base_model") else self.module
        decoder = getattr(module, module.base_model_prefix, module)
        with torch.inference_mode(), memory_errors(self.model.name):
            return decoder(**inputs)

    def _mask(self, slab: Slab, positions: Tensor, width: int) -> Any:
        """Return the ready-made attention mask (B, 1, Q, width): a row sees its own columns up to the query's position."""
        assert self._layers is not None
        columns = torch.arange(width, device=self.device)
        query = positions[:, None, :, None]
        seen = columns <= query
        windows = {s.window for s in self._layers}

        def form(mask: Tensor) -> Tensor:
            if self.module.config._attn_implementation == "sdpa":
                return mask
            return torch.zeros(mask.shape, dtype=self.dtype, device=self.device).masked_fill_(
                ~mask, torch.finfo(self.dtype).min
            )

        if windows == {None}:
            return form(seen)
        sliding = {w: form(seen & (query - columns < w)) for w in windows if w is not None}
        if len(windows) == 1:
            return next(iter(sliding.values()))
        # models that mix layer kinds take one mask per kind
        return {"full_attention": form(seen), "sliding_attention": next(iter(sliding.values()))}
