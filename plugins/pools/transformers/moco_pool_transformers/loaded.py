"""One model in memory, ready to run: what :class:`moco_toolkit_checkpoints.local.Loaded` promises."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from moco_core.errors import EngineOutOfMemory
from moco_core.models import Model
from moco_core.types import FinishReason, Generation, Message, Usage
from moco_toolkit_checkpoints.local import Output, Rendered
from moco_toolkit_checkpoints.reasoning import split
from moco_toolkit_checkpoints.rendering import Renderer
from moco_toolkit_checkpoints.transformers import DynamicCache
from moco_toolkit_decoding.attention import decoder_of
from moco_toolkit_decoding.runner import ATTENTION_KINDS, CacheProbe, ModelRunner
from moco_toolkit_decoding.sampling import sampling_device
from moco_toolkit_decoding.two_tables import TwoTableRunner, switch_of

__all__ = ["LoadedModel", "memory_errors"]


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


class LoadedModel:
    """See :class:`moco_toolkit_checkpoints.local.Loaded`."""

    def __init__(
        self,
        model: Model,
        module: Any,
        renderer: Renderer,
        *,
        tags: Sequence[tuple[str, str]],
        ends: Sequence[int] = (),
        activate: Callable[[], None] | None = None,
        probe: CacheProbe | None = None,
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
        added = self.tokenizer.added_tokens_decoder
        # a tokenizer may know ids that the embedding has no row for, such as those of images
        self.vocab = min(max([len(self.tokenizer) - 1, *added]) + 1, self.config.vocab_size)
        self.end_ids = renderer.end_ids(ends)
        # some recurrent classes name their cache otherwise, and would take any other argument without a word
        named = "cache_params" in inspect.signature(module.forward).parameters
        self._cache_argument = "cache_params" if named else "past_key_values"
        switch = switch_of(module.config)
        self.runner = TwoTableRunner(self, probe, switch) if switch else ModelRunner(self, probe)

    # ---------------------------------------------------------------- text

    def render(self, messages: Sequence[Message], *, reserve: int = 0) -> Rendered:
        return self.renderer.render(messages, reserve)

    def render_input(self, given: Mapping[str, Any], *, reserve: int = 0) -> Rendered:
        return self.renderer.render_input(given, reserve)

    def encode(self, text: str) -> list[int]:
        return self.renderer.encode(text)

    def decode(self, ids: Sequence[int], *, tags: bool = False) -> str:
        return self.renderer.decode(ids, tags=tags)

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
        if text is None:
            text = self.decode(ids[:-1] if finish == "eos" else ids, tags=True)
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
            attention_mask=mask if self._cache_argument == "past_key_values" else None,
            position_ids=positions,
            **{self._cache_argument: cache},
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

    def body(self, **inputs: Any) -> Any:
        """Run the decoder without the head on top of it."""
        self.activate()
        with torch.inference_mode(), memory_errors(self.model.name):
            return decoder_of(self.module)(**inputs)
