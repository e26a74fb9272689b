"""Tiny random checkpoints that every engine can open, written by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

CORPUS = [
    "the quick brown fox jumps over the lazy dog and runs away",
    "what is the capital of France? The capital is Paris. Stop here.",
    "numbers 0 1 2 3 4 5 6 7 8 9 ten eleven. What is 2 + 3? The answer is 5.",
    "Say a word. Repeat: apple pear plum. Then say which fruit came first\n\nQ: A:",
] * 4

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # heads of 32: the smallest that vLLM's CPU kernels know
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}


def tokenizer(template: str | None = TEMPLATE, vocab: int = 400) -> Any:
    """Return a byte-level BPE tokenizer that puts BOS in front of plain text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

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
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    out = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    out.chat_template = template
    return out


def write(
    folder: Path,
    seed: int = 0,
    *,
    classifier: bool = False,
    template: str | None = TEMPLATE,
    tok: Any = None,
    **changes: Any,
) -> str:
    """Write a random Llama checkpoint with peaked distributions, so that replies vary; return its folder.

    Its tokenizer is ``tok``, or that of :func:`tokenizer` with the chat template.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    tok = tok or tokenizer(template)
    torch.manual_seed(seed)
    sizes = {**SIZES, **changes}
    config = LlamaConfig(vocab_size=len(tok), bos_token_id=0, eos_token_id=1, pad_token_id=None, **sizes)
    model: Any = (LlamaForSequenceClassification if classifier else LlamaForCausalLM)(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.mul_(4.0 if "lm_head" in name or "embed" in name else 2.0)
    model.eval().save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


def write_encoder(folder: Path, kind: str = "Bert") -> str:
    """Write a random encoder of width 32 (Bert, Roberta, DistilBert) with a tokenizer without a template; return its folder."""
    import torch
    import transformers

    words = tokenizer(None)
    words.pad_token, words.model_max_length = "<|end|>", 120
    config = getattr(transformers, f"{kind}Config")
    sizes = {"hidden_size": 32, "dim": 32, "num_hidden_layers": 2, "n_layers": 2, "num_attention_heads": 2, "n_heads": 2}
    more = {"intermediate_size": 64, "hidden_dim": 64, "max_position_embeddings": 128, "pad_token_id": words.pad_token_id}
    known = {k: v for k, v in {**sizes, **more}.items() if k not in config.attribute_map}
    torch.manual_seed(0)
    getattr(transformers, f"{kind}Model")(config(vocab_size=len(words), **known)).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def write_lora(folder: Path, base: str, seed: int = 0, rank: int = 4, width: int | None = None) -> str:
    """Write a random LoRA adapter on the attention of a checkpoint of :func:`write`; return its folder."""
    import json

    import torch
    from safetensors.torch import save_file

    hidden = width or SIZES["hidden_size"]
    torch.manual_seed(seed)
    tensors = {}
    for layer in range(SIZES["num_hidden_layers"]):
        for module, out in (("q_proj", hidden), ("v_proj", hidden // 2)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, hidden)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(out, rank)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "base_model_name_or_path": base,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)
