"""Small causal models: random ones of several architectures, and one whose scores a function computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from moco_toolkit_decoding.kv_cache import LayerShape

__all__ = ["ScriptedModule", "tiny_gpt2", "tiny_llama", "tiny_mistral"]


def tiny_llama(tokenizer: Any, seed: int, *, rows: int = 0, spread: float = 0.5, **sizes: Any) -> Any:
    """Return a random Llama of two layers; ``rows`` adds padding rows to the embedding, ``spread`` sharpens its scores."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _random(LlamaForCausalLM, LlamaConfig, tokenizer, seed, rows, spread, {"num_key_value_heads": 2, **sizes})


def tiny_mistral(tokenizer: Any, seed: int, *, window: int = 8, spread: float = 0.5) -> Any:
    """Return a random Mistral whose layers see a window of the text only."""
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"num_key_value_heads": 2, "sliding_window": window}
    return _random(MistralForCausalLM, MistralConfig, tokenizer, seed, 0, spread, sizes)


def tiny_gpt2(tokenizer: Any, seed: int, *, positions: int = 512, spread: float = 0.5) -> Any:
    """Return a random GPT-2: learned absolute positions, so a wrong position shows, and one too many fails."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        size = len(tokenizer)
        config = GPT2Config(
            vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=positions, eos_token_id=0, bos_token_id=None
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


class _Reader(nn.Module):
    """What a scripted model has below its script: the ids in the cache."""

    def forward(self, input_ids: Tensor, past_key_values: Any, **_: Any) -> Tensor:
        written = input_ids.to(torch.float32)[:, None, :, None]
        keys: Tensor = past_key_values.update(written, written, 0)[0]
        return keys[:, 0, :, 0].long()


class ScriptedModule(nn.Module):
    """A causal model whose scores a function computes: ``script(ids) -> {token: logit}`` for the ids read so far.

    Tokens that are not named get the logit -10. The ids are kept in the cache that the forward is given, whose shape is
    ``layers``.
    """

    base_model_prefix = "reader"
    dtype = torch.float32
    layers = (LayerShape(1, 1, 1, 1),)

    def __init__(self, size: int, script: Callable[[list[int]], Mapping[int, float]], *, hidden: int = 4) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.reader = _Reader()
        self.size, self.script, self.width = size, script, hidden
        self.config = SimpleNamespace(_attn_implementation="sdpa")

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        past_key_values: Any,
        logits_to_keep: int = 1,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> Any:
        rows, width = input_ids.shape
        seen = self.reader(input_ids, past_key_values)
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
