"""Tiny random checkpoints and a minimal inbox for the tests of the transformers engine."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from moco_core.models import Call, Model
from moco_core.types import Sampling, digest
from moco_pool_transformers.pool import Options, TransformersPool
from moco_toolkit_checkpoints.local import Weights

torch.set_num_threads(1)

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
THINKING = TEMPLATE.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<think>\n{% endif %}")

CORPUS = [
    "the quick brown fox jumps over the lazy dog and runs away",
    "what is the capital of France? The capital is Paris. Stop here.",
    "numbers 0 1 2 3 4 5 6 7 8 9 ten eleven; emoji \U0001f600 and \u65e5\u672c\u8a9e text",
    "<think> let me think about it </think> the answer is 42\n\nQ: A:",
] * 4


def tokenizer(template: str | None = TEMPLATE, vocab: int = 400, bos: bool = True) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that puts BOS in front of plain text."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken(s, special=True) for s in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator(CORPUS, trainer)
    if bos:
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    out = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    out.chat_template = template
    return out


SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def build(kind: str, vocab: int, seed: int = 0, **changes: Any) -> Any:
    """Return a random model. Weights are scaled up so that its distributions are peaked and replies vary."""
    torch.manual_seed(seed)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    if kind == "gpt2":
        settings = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": vocab, **ids, **changes}
        model: Any = GPT2LMHeadModel(GPT2Config(**settings))
    else:
        config, cls = {
            "llama": (LlamaConfig, LlamaForCausalLM),
            "qwen2": (Qwen2Config, Qwen2ForCausalLM),
            "mistral": (MistralConfig, MistralForCausalLM),
            "mixtral": (MixtralConfig, MixtralForCausalLM),
            "granite": (GraniteConfig, GraniteForCausalLM),
            "reward": (LlamaConfig, LlamaForSequenceClassification),
        }[kind]
        model = cls(config(vocab_size=vocab, **{**SMALL, **ids, **changes}))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.mul_(4.0 if "lm_head" in name or "embed" in name or "wte" in name else 2.0)
    return model.eval()


def checkpoint(
    folder: Path, kind: str = "llama", seed: int = 0, template: str | None = TEMPLATE, **changes: Any
) -> str:
    """Write a random checkpoint and return its folder."""
    tok = tokenizer(template)
    build(kind, len(tok), seed, **changes).save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


def encoder(folder: Path, kind: str, *, model_max_length: int = 40, seed: int = 0) -> str:
    """Write a random encoder of that class of transformers, and return its folder. Its tokenizer closes every text."""
    tok = tokenizer(None)
    tok.pad_token, tok.model_max_length = "<|end|>", model_max_length
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    config = getattr(transformers, kind.partition("Model")[0].partition("For")[0] + "Config")
    settings = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    torch.manual_seed(seed)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": tok.pad_token_id, "cls_token_id": 0, "sep_token_id": 1}
    getattr(transformers, kind)(config(vocab_size=len(tok), **{**settings, **ids})).save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


def pool(*entries: Any, cache: Path, **options: Any) -> TransformersPool:
    from moco_core.options import build as build_options

    return TransformersPool(
        build_options(Options, {"models": list(entries), "device": "cpu", "cache": str(cache), **options})
    )


def one(folder: str | Path, cache: Path, **options: Any) -> Model:
    return pool(str(folder), cache=cache, **options).models()[0]


@attrs.frozen
class Mean:
    """The mean of full weights."""

    kind = "weights"

    sources: tuple[Model, ...]

    @property
    def fingerprint(self) -> str:
        return digest("mean", [s.fingerprint for s in self.sources])

    def tensor(self, name: str, sources: Sequence[Weights]) -> torch.Tensor:
        return sum(s.get(name).float() for s in sources) / len(sources)  # type: ignore[return-value]


class FakeInbox:
    """The least an engine can be served with."""

    def __init__(self, calls: list[Call], limit: int = 1 << 30) -> None:
        self.queue = deque(calls)
        self.limit = limit
        self.cancelled = False
        self.done: dict[int, Any] = {}
        self.taken: list[Call] = []
        self.most = 0
        self.on_resolve: Any = None

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def demand(self) -> dict[str, int]:
        out: dict[str, int] = {}
        for call in self.queue:
            out[call.model.name] = out.get(call.model.name, 0) + 1
        return out

    def take(self, n: int | None = None) -> list[Call]:
        room = self.limit - len(self.taken)
        count = max(0, min(len(self.queue), room, n if n is not None else room))
        calls = [self.queue.popleft() for _ in range(count)]
        self.taken += calls
        self.most = max(self.most, len(self.taken))
        return calls

    def resolve(self, results: Any) -> None:
        for call, value in results:
            self.taken.remove(call)
            self.done[id(call)] = value
        if self.on_resolve is not None:
            self.on_resolve(results)

    def reject(self, call: Call, error: Exception) -> None:
        self.taken.remove(call)
        self.done[id(call)] = error


def ask(model: Model, prompt: str | list[tuple[str, str]], seed: int | None = None, **sampling: Any) -> Call:
    """A generate call: a string is sent as raw text, a list as a conversation."""
    given: Any = {"text": prompt} if isinstance(prompt, str) else {"messages": [list(m) for m in prompt]}
    return Call(model, "generate", given, Sampling(**{"max_new_tokens": 16, **sampling}).params(), seed)


def serve(model: Model, calls: list[Call], limit: int = 1 << 30) -> list[Any]:
    """Answer calls and return the results in their order."""
    inbox = FakeInbox(calls, limit)
    model.engine.serve(model, inbox)
    assert not inbox.queue and not inbox.taken
    return [inbox.done[id(c)] for c in calls]
