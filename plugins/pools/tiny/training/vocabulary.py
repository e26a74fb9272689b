"""The two tokenizers: byte-level BPE, so any text can be encoded and comes back unchanged.

The families differ in vocabulary size, special tokens and chat markup. Digits are always single tokens.
"""

from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_PIECES = r" ?\d| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s"

_LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        "size": 768,
        "specials": ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"],
        "template": _LLAMA_TEMPLATE,
        "pad": "<|pad|>",
        "bos": "<|bos|>",
        "eos": "<|end|>",
    },
    "qwen": {
        "size": 512,
        "specials": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "template": _QWEN_TEMPLATE,
        "pad": "<|endoftext|>",
        "bos": None,
        "eos": "<|im_end|>",
    },
}


def train_tokenizer(family: str, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train the tokenizer of a family ("llama" or "qwen") on `texts`; the result is the same for the same texts."""
    spec = _FAMILIES[family]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec["size"],
        special_tokens=spec["specials"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=spec["pad"],
        bos_token=spec["bos"],
        eos_token=spec["eos"],
        additional_special_tokens=[t for t in spec["specials"] if t not in (spec["pad"], spec["bos"], spec["eos"])],
        chat_template=spec["template"],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="left",
    )
