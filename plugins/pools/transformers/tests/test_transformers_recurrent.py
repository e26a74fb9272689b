"""Models whose state is no keys and values: they say what transformers itself generates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    MambaConfig,
    MambaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    RwkvConfig,
    RwkvForCausalLM,
)
from transformers_tiny import ask, pool, serve, tokenizer


def saved(module: Any, folder: Path) -> Any:
    for parameter in module.parameters():
        parameter.data.mul_(2.5 if parameter.ndim > 1 else 1)
    module.eval().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return module


SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": 1}
KINDS = {
    "remembers": (MambaForCausalLM, MambaConfig(vocab_size=len(tokenizer()), state_size=8, **SIZES)),
    "remembers in a way of its own": (
        RwkvForCausalLM,
        RwkvConfig(vocab_size=len(tokenizer()), attention_hidden_size=32, **SIZES),
    ),
    "remembers nothing": (
        OpenAIGPTLMHeadModel,
        OpenAIGPTConfig(vocab_size=len(tokenizer()), n_embd=32, n_layer=2, n_head=4, n_positions=64),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_keys_and_values_says_what_the_library_says(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    cls, config = KINDS[kind]
    saved(cls(config), tmp_path / "m")
    module = cls.from_pretrained(tmp_path / "m").eval()
    (model,) = pool(str(tmp_path / "m"), cache=tmp_path).models()
    assert not model.can("step")
    texts = ["the quick brown", "what is", "what", "the quick red"]
    replies = serve(model, [ask(model, text, max_new_tokens=12) for text in texts])
    for text, reply in zip(texts, replies, strict=True):
        ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "m")(text)["input_ids"]])
        settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": [1, 2], "pad_token_id": 0}
        want = module.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        assert list(reply.token_ids) == want[0, ids.shape[1] :].tolist()
