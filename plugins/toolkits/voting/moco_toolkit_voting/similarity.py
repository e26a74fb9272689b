"""How similar two answers are, in [0, 1]: token F1, BLEU and the cosine of embeddings."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from moco_core import ConfigError

__all__ = ["bleu", "cosine", "token_f1", "tokens"]

_ARTICLES = frozenset({"a", "an", "the"})
# Scripts written without spaces: Han, kana and Hangul are compared by character.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(f"[{_CJK}]|[^\\W{_CJK}]+")


def tokens(text: str) -> list[str]:
    """Return the words of a text as SQuAD's scorer counts them: casefolded, without punctuation and articles.

    Two choices differ from SQuAD's script: accents are folded, and a hyphen separates words.
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = unicodedata.normalize("NFC", re.sub(r"[-\u2010-\u2015]", " ", plain))
    plain = "".join(c for c in plain if c.isspace() or not unicodedata.category(c).startswith("P"))
    return [word for word in _WORD.findall(plain) if word not in _ARTICLES]


def token_f1(a: str, b: str) -> float:
    """Return the F1 of the two bags of words, 2 o / (|A| + |B|) with o their overlap; 1 if both are empty.

    Rajpurkar et al., "SQuAD", arXiv 1606.05250. Texts of which normalisation leaves nothing are compared as they are.
    """
    first, second = Counter(tokens(a)), Counter(tokens(b))
    if not first or not second:
        return float(not first and not second and a.strip() == b.strip())
    return 2 * (first & second).total() / (first.total() + second.total())


def bleu(a: str, b: str) -> float:
    """Return the sentence BLEU of ``a`` against ``b``, in [0, 1]: sacrebleu's tokens, smoothing and effective order.

    Raises ConfigError if sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise ConfigError(
            "similarity: bleu needs sacrebleu; install it (pip install 'moco-toolkit-voting[bleu]') "
            "or choose similarity=token_f1"
        ) from error
    return min(1.0, float(BLEU(effective_order=True).sentence_score(a, [b]).score) / 100)


def cosine(u: Sequence[float], v: Sequence[float]) -> float:
    """Return the cosine of two vectors, negative values as 0; 0 if one of them is zero."""
    norm = math.sqrt(math.fsum(x * x for x in u)) * math.sqrt(math.fsum(x * x for x in v))
    return min(1.0, max(0.0, math.fsum(x * y for x, y in zip(u, v, strict=True)) / norm)) if norm else 0.0
