"""Recurrent models: what transformers itself generates, or one line that refuses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, RwkvConfig, RwkvForCausalLM
from transformers_tiny import ask, pool, serve, tokenizer

from moco_core.errors import CapabilityError


def saved(module: Any, folder: Path) -> Any:
    for parameter in module.parameters():
        parameter.data.mul_(2.5 if parameter.ndim > 1 else 1)
    module.eval().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return module


def test_a_recurrent_model_remembers_or_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer()), "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": 1}
    saved(MambaForCausalLM(MambaConfig(state_size=8, **sizes)), tmp_path / "mamba")
    mamba = MambaForCausalLM.from_pretrained(tmp_path / "mamba").eval()
    saved(RwkvForCausalLM(RwkvConfig(attention_hidden_size=32, **sizes)), tmp_path / "rwkv")
    (model,) = pool(str(tmp_path / "mamba"), cache=tmp_path).models()
    for text in ("the quick brown", "what is"):
        (reply,) = serve(model, [ask(model, text, max_new_tokens=12)])
        ids = torch.tensor([tokenizer()(text)["input_ids"]])
        settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": [1, 2], "pad_token_id": 0}
        want = mamba.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        assert list(reply.token_ids) == want[0, ids.shape[1] :].tolist()
    (other,) = pool(str(tmp_path / "rwkv"), cache=tmp_path).models()
    with pytest.raises(CapabilityError, match="RwkvForCausalLM keeps its state") as caught:
        serve(other, [ask(other, "what is")])
    assert "\n" not in str(caught.value)
