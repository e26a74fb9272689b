"""An engine that runs modules of this process."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Collection, Hashable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import torch

from moco_core.errors import PromptTooLong
from moco_core.models import Engine, Inbox, Model
from moco_core.types import Generation, Usage, digest
from moco_toolkit_checkpoints.local import ModelFiles
from moco_toolkit_checkpoints.reasoning import left_open, split
from moco_toolkit_decoding.attention import decoder_of
from moco_toolkit_decoding.combine import Mix
from moco_toolkit_decoding.joint import JointRecipe
from moco_toolkit_decoding.runner import CacheProbe, ModelRunner
from moco_toolkit_decoding.testing.modules import ScriptedModule

__all__ = ["LocalEngine", "LocalLoaded"]

_CAPABILITIES = frozenset({"generate", "logprobs", "step", "hidden"})


@attrs.define(eq=False)
class LocalLoaded:
    """A module and a tokenizer with what the toolkit needs of a loaded model."""

    model: Any
    module: Any
    tokenizer: Any
    end_ids: frozenset[int]
    context_length: int | None = None
    tags: Sequence[tuple[str, str]] = ()
    scratch: MutableMapping[Hashable, Any] = attrs.field(factory=dict)
    probe: CacheProbe = attrs.field(factory=CacheProbe)
    forwards: int = 0

    @cached_property
    def device(self) -> Any:
        return next(self.module.parameters()).device

    @cached_property  # a step asks for it, and the tokenizer builds the whole table
    def vocab(self) -> int:
        size = int(max(self.tokenizer.get_vocab().values())) + 1
        return min(size, getattr(self.module.config, "vocab_size", size))

    @property
    def runner(self) -> ModelRunner:
        return ModelRunner(self, self.probe)

    def render_input(self, given: Mapping[str, Any], *, reserve: int = 0) -> Any:
        if "text" in given:
            text = given["text"]
        elif self.tokenizer.chat_template:
            messages = [{"role": r, "content": c} for r, c in given["messages"]]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        else:
            turns = list(given["messages"])
            written = turns.pop()[1] if turns[-1][0] == "assistant" else ""  # is continued
            text = "\n".join(c for _, c in turns) + written
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        if self.context_length is not None and len(ids) + reserve > self.context_length:
            raise PromptTooLong(
                f"{self.model.name}: {len(ids)} tokens and {reserve} to write exceed {self.context_length}"
            )
        return SimpleNamespace(ids=ids, text=text, opened=left_open(text, self.tags), meta={})

    def decode(self, ids: Sequence[int], *, tags: bool = False) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def run(self, **inputs: Any) -> Any:
        self.forwards += 1
        with torch.inference_mode():
            return self.module(**inputs)

    def body(self, **inputs: Any) -> Any:
        self.forwards += 1
        with torch.inference_mode():
            return decoder_of(self.module)(**inputs)

    def generation(
        self,
        prompt: Any,
        ids: Sequence[int],
        logprobs: Sequence[float],
        finish: Any,
        *,
        text: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Generation:
        if text is None:
            text = self.decode(ids[:-1] if finish == "eos" else ids)
        reasoning, answer = split(text, self.tags, prompt.opened)
        return Generation(
            text=answer,
            reasoning=reasoning,
            finish_reason=finish,
            token_ids=tuple(ids),
            token_logprobs=tuple(logprobs),
            usage=Usage(len(prompt.ids), len(ids)),
            meta=meta or {},
        )


class LocalEngine(Engine):
    """Runs modules of this process. ``batches`` holds how many step operations came together, per model."""

    def __init__(self) -> None:
        self.loaded: dict[str, LocalLoaded] = {}
        self.recipes: dict[str, tuple[Any, list[Model]]] = {}
        self.batches: dict[str, list[int]] = {}
        self.calls: dict[str, int] = {}
        self._folder = tempfile.mkdtemp(prefix="moco-tokenizers-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def add(
        self,
        name: str,
        module: Any,
        tokenizer: Any,
        *,
        capabilities: Collection[str] = _CAPABILITIES,
        ends: Collection[int] | None = None,
        fingerprint: str = "",
        copy: int = 0,
        context_length: int | None = None,
    ) -> Model:
        """Add a model; ``ends`` are its end tokens, the tokenizer's eos by default."""
        mark = digest("tokenizer", sorted(tokenizer.get_vocab().items()))
        model = Model(
            name=name,
            fingerprint=fingerprint or digest("local", name),
            capabilities=frozenset(capabilities),
            engine=self,
            tokenizer=mark,
            copy=copy,
            memory=0,
        )
        end_ids = frozenset([tokenizer.eos_token_id] if ends is None else ends)
        loaded = self.loaded[name] = LocalLoaded(model, module.eval(), tokenizer, end_ids, context_length)
        if isinstance(module, ScriptedModule):
            loaded.probe.layers = list(module.layers)
        tokenizer.save_pretrained(self._where(mark))
        return model

    def _where(self, mark: str) -> str:
        return str(Path(self._folder) / mark[:12])

    def files(self, model: Model) -> ModelFiles:
        return ModelFiles(tokenizer=Path(self._where(model.tokenizer)))

    @contextmanager
    def use(self, *models: Model) -> Iterator[tuple[LocalLoaded, ...]]:
        yield tuple(self.loaded[m.name] for m in models)

    def ready(self, model: Model) -> bool:
        return True

    def derive(self, name: str, recipe: Any, sources: Sequence[Model]) -> Model:
        model = Model(
            name=name,
            fingerprint=recipe.fingerprint,
            capabilities=recipe.capabilities,
            engine=self,
            tokenizer=sources[0].tokenizer,
            memory=0,
        )
        self.recipes[name] = (recipe, list(sources))
        return model

    def serve(self, model: Model, inbox: Inbox) -> None:
        self.calls[model.name] = self.calls.get(model.name, 0) + inbox.waiting
        if model.name in self.recipes:
            recipe, sources = self.recipes[model.name]
            recipe.serve(self, model, sources, inbox)
            return
        while inbox.waiting and not inbox.cancelled:
            calls = inbox.take()
            texts = [c for c in calls if c.kind == "generate"]
            steps = [c for c in calls if c.payload is not None]
            if steps:
                self.batches.setdefault(model.name, []).append(len(steps))
                results = steps[0].payload.run(self.loaded[model.name], steps)
                outcomes = list(zip(steps, results, strict=True))
                inbox.resolve([(call, result) for call, result in outcomes if not isinstance(result, Exception)])
                for call, result in outcomes:
                    if isinstance(result, Exception):
                        inbox.reject(call, result)
            if texts:
                recipe = JointRecipe.of(Mix(weights=(1.0,)), [model])
                recipe.serve(self, model, [model], _Given(inbox, texts))
            elif steps:
                return  # whose turn it is now, the scheduler knows


class _Given:
    """An inbox that first hands out calls that were taken before."""

    def __init__(self, inbox: Inbox, calls: list[Any]) -> None:
        self._inbox, self._calls = inbox, calls
        self.demand: Mapping[str, int] = {}
        self.limit = 1 << 30

    @property
    def waiting(self) -> int:
        return len(self._calls)

    @property
    def cancelled(self) -> bool:
        return self._inbox.cancelled

    def take(self, n: int | None = None) -> list[Any]:
        out, self._calls = self._calls[:n], self._calls[len(self._calls) if n is None else n :]
        return out

    def resolve(self, results: Sequence[tuple[Any, Any]]) -> None:
        self._inbox.resolve(results)

    def reject(self, call: Any, error: Exception) -> None:
        self._inbox.reject(call, error)
