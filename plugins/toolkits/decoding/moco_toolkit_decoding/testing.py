"""Stand-ins for an engine: any module and tokenizer as a model, tiny random models, and scripted ones.

For tests of methods that work token by token. A :class:`LocalEngine` answers through the core's real scheduler::

    engine = LocalEngine()
    pool = Pool([engine.add("a", tiny_llama(tokenizer, seed=1), tokenizer), ...])
    outcome = run_method(MyMethod(options), pool, questions=[question])

A :class:`ScriptedModule` computes its next-token scores from the token ids by a function of the test; it keeps the ids in the
key/value cache, so that a wrong cache shows.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from moco_core.errors import PromptTooLong
from moco_core.models import Engine, Inbox, Model
from moco_core.types import Generation, Usage, digest
from moco_toolkit_decoding.combine import Mix
from moco_toolkit_decoding.joint import JointRecipe

__all__ = [
    "LocalEngine",
    "LocalLoaded",
    "ScriptedModule",
    "bpe_tokenizer",
    "spaced_tokenizer",
    "tiny_gpt2",
    "tiny_llama",
    "tiny_mistral",
    "word_tokenizer",
]

_CAPABILITIES = frozenset({"generate", "logprobs", "step", "hidden"})
_TEXT = (
    "the quick brown fox jumps over the lazy dog and runs home",
    "international rivers inter national 12 + 34 = 46 yes no",
    "naïve café 中文文本 日本語 😀 ok\n\nnew lines",
)


@attrs.define(eq=False)
class LocalLoaded:
    """A module and a tokenizer with what the toolkit needs of a loaded model."""

    model: Any
    module: Any
    tokenizer: Any
    end_ids: frozenset[int]
    context_length: int | None = None
    scratch: MutableMapping[Hashable, Any] = attrs.field(factory=dict)
    supports_rollback: bool = True
    forwards: int = 0

    @property
    def device(self) -> Any:
        return next(self.module.parameters()).device

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
        return SimpleNamespace(ids=ids, text=text, opened="", meta={})

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def forward(
        self, ids: Tensor, mask: Any, positions: Tensor, cache: Any, *, keep: int = 1, hidden: bool = False
    ) -> Any:
        self.forwards += 1
        with torch.inference_mode():
            out = self.module(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=keep,
                output_hidden_states=hidden,
            )
        last = out.hidden_states[-1] if hidden else None
        logits = out.logits.float()
        if keep == 1:
            return SimpleNamespace(logits=logits[:, -1], hidden=None if last is None else last[:, -1])
        return SimpleNamespace(logits=logits, hidden=last)

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
        said = ids[:-1] if finish == "eos" and ids and ids[-1] in self.end_ids else ids
        return Generation(
            text=self.decode(said) if text is None else text,
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
        self.loaded[name] = LocalLoaded(model, module.eval(), tokenizer, end_ids, context_length)
        tokenizer.save_pretrained(self._where(mark))
        return model

    def _where(self, mark: str) -> str:
        return str(Path(self._folder) / mark[:12])

    def entry(self, model: Model) -> Mapping[str, Any]:
        return {"model": self._where(model.tokenizer)}

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


# -------------------------------------------------------------------- tokenizers


def bpe_tokenizer(size: int = 400, *, texts: Sequence[str] = _TEXT, extra: Sequence[str] = ()) -> Any:
    """Return a byte-level BPE tokenizer with ``<end>`` as its end token; ``extra`` adds plain tokens at the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<end>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if extra:
        tokenizer.add_tokens(list(extra))
    return _wrapped(tokenizer)


def spaced_tokenizer(size: int = 500, *, texts: Sequence[str] = _TEXT) -> Any:
    """Return a SentencePiece-like tokenizer: a space before the first word, bytes as a fallback."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    fallback = [f"<0x{b:02X}>" for b in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<unk>", "<end>", "<pad>", *fallback],
        initial_alphabet=["\u2581"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([t for t in texts if t.isascii()], trainer)
    # the byte tokens were special only so that the trainer keeps them; as part of the model they are ordinary
    layout = json.loads(tokenizer.to_str())
    layout["added_tokens"] = [t for t in layout["added_tokens"] if t["content"] not in fallback]
    return _wrapped(Tokenizer.from_str(json.dumps(layout)), unk_token="<unk>")


def word_tokenizer(tokens: Sequence[str]) -> Any:
    """Return a byte-level tokenizer whose first ids are ``<end>``, ``<pad>`` and the given tokens, then all single bytes.

    Text is cut into the longest of these from the left only where a scripted model emits them; encoding is by bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    written = [_letters(t) for t in tokens]
    vocabulary = {t: i for i, t in enumerate(dict.fromkeys(["<end>", "<pad>", *written, *letters]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer = Tokenizer(models.BPE(vocabulary, _merges(written, vocabulary)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>", "<pad>"])
    return _wrapped(tokenizer)


def _letters(text: str) -> str:
    from moco_toolkit_decoding.text import _byte_letters

    table = {b: c for c, b in _byte_letters().items()}
    return "".join(table[b] for b in text.encode())


def _merges(tokens: Sequence[str], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Left-to-right merges that build every token; prefixes become tokens too."""
    out: list[tuple[str, str]] = []
    for token in tokens:
        for n in range(2, len(token) + 1):
            pair = (token[: n - 1], token[n - 1])
            if pair not in out:
                out.append(pair)
                vocabulary.setdefault(token[:n], len(vocabulary))
    return out


def _wrapped(tokenizer: Any, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        **special,
    )


# -------------------------------------------------------------------- modules


def tiny_llama(tokenizer: Any, seed: int, *, rows: int = 0, spread: float = 0.5, **sizes: Any) -> Any:
    """Return a random Llama of two layers; ``rows`` adds padding rows to the embedding, ``spread`` sharpens its scores."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _random(LlamaForCausalLM, LlamaConfig, tokenizer, seed, rows, spread, {"num_key_value_heads": 2, **sizes})


def tiny_mistral(tokenizer: Any, seed: int, *, window: int = 8, spread: float = 0.5) -> Any:
    """Return a random Mistral whose layers see a window of the text only."""
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"num_key_value_heads": 2, "sliding_window": window}
    return _random(MistralForCausalLM, MistralConfig, tokenizer, seed, 0, spread, sizes)


def tiny_gpt2(tokenizer: Any, seed: int, *, spread: float = 0.5) -> Any:
    """Return a random GPT-2: learned absolute positions, so a wrong position shows."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        size = len(tokenizer)
        config = GPT2Config(
            vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=512, eos_token_id=0, bos_token_id=None
        )
        return _spread(GPT2LMHeadModel(config), spread)


def _random(
    model: Any, config: Any, tokenizer: Any, seed: int, rows: int, spread: float, sizes: Mapping[str, Any]
) -> Any:
    base: dict[str, Any] = {
        "vocab_size": len(tokenizer) + rows,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _spread(model(config(**{**base, **sizes})), spread)


def _spread(module: Any, spread: float) -> Any:
    """Scale the weights so that a random model has opinions: its greedy text then varies with the context."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(spread / 0.02 * 0.25)
    return module.eval()


class ScriptedModule(nn.Module):
    """A causal model whose scores a function computes: ``script(ids) -> {token: logit}`` for the ids read so far.

    Tokens that are not named get the logit -10. The ids are kept in the cache that the forward is given.
    """

    def __init__(self, size: int, script: Callable[[list[int]], Mapping[int, float]], *, hidden: int = 4) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.size, self.script, self.width = size, script, hidden
        self.config = SimpleNamespace(_attn_implementation="sdpa", sliding_window=None, layer_types=None)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        past_key_values: Any,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> Any:
        rows, width = input_ids.shape
        written = input_ids.to(torch.float32)[:, None, :, None]
        seen = past_key_values.update(written, written, 0)[0][:, 0, :, 0].long()
        columns = range(width - logits_to_keep if logits_to_keep else 0, width)
        logits = torch.full((rows, len(columns), self.size), -10.0)
        for row in range(rows):
            for place, column in enumerate(columns):
                ids = seen[row, : int(position_ids[row, column]) + 1].tolist()
                for token, value in self.script(ids).items():
                    logits[row, place, token] = value
        states = None
        if output_hidden_states:
            last = input_ids[:, list(columns)].float()
            states = (torch.stack([last / self.size] * self.width, -1),)
        return SimpleNamespace(logits=logits, hidden_states=states)
