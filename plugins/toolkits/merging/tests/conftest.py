"""Tiny random checkpoints and adapters on disk, and pools of them."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from moco_core.options import build

torch.set_num_threads(1)
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


class Factory:
    """Writes checkpoints below a folder. Weights are scaled so that greedy replies differ between models."""

    def __init__(self, root):
        self.root = root

    def module(self, seed, tied=True, vocab=260, dtype=torch.float32, near=None, step=0.02, **changes):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocab,
            tie_word_embeddings=tied,
            bos_token_id=256,
            eos_token_id=257,
            pad_token_id=None,
            num_key_value_heads=2,
            max_position_embeddings=512,
            **{**SHAPE, **changes},
        )
        module = LlamaForCausalLM(config)
        with torch.no_grad():
            for p in module.parameters():
                if p.ndim > 1:
                    p.mul_(3.0)
            if near is not None:  # a fine-tuned child: the parent plus a small step
                for p, q in zip(module.parameters(), near.parameters(), strict=True):
                    p.copy_(q + step * p)
        return module.to(dtype).eval()

    def checkpoint(self, name, module):
        folder = self.root / name
        module.save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)
        return str(folder)

    def model(self, name, seed, **changes):
        return self.checkpoint(name, self.module(seed, **changes))

    def tokenizer(self):
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        out = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
        out.chat_template = TEMPLATE
        return out

    def adapter(self, name, base, seed, rank=4, alpha=8, targets=("q_proj", "v_proj"), **config):
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=False, **config)
        module = get_peft_model(LlamaForCausalLM.from_pretrained(base), settings)
        with torch.no_grad():
            for n, p in module.named_parameters():
                if "lora_" in n:
                    p.mul_(1.5)
        module.save_pretrained(self.root / name)
        path = self.root / name / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}))
        return {"model": base, "adapter": str(self.root / name), "name": name}

    def pool(self, *entries):
        from moco_pool_transformers.pool import Options, TransformersPool

        options = {"models": list(entries), "device": "cpu", "cache": str(self.root / ".hashes")}
        return TransformersPool(build(Options, options))


@pytest.fixture
def factory(tmp_path):
    return Factory(tmp_path)
