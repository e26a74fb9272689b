"""Small tokenizers of three kinds: byte-level, SentencePiece-like, and made of given words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["bpe_tokenizer", "spaced_tokenizer", "word_tokenizer"]

_TEXT = (
    "the quick brown fox jumps over the lazy dog and runs home",
    "international rivers inter national 12 + 34 = 46 yes no",
    "naïve café 中文文本 日本語 😀 ok\n\nnew lines",
)


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
