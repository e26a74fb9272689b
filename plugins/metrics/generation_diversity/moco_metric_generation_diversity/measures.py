"""Measures of diversity, as pure functions of texts or of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moco_core.errors import ConfigError

__all__ = ["distinct_n", "pairwise_distance", "reference_distance", "self_bleu", "vendi_score"]

Vector = Sequence[float]


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Return unique n-grams over all n-grams of all texts (Li et al. 2016, arXiv 1510.03055); 0 without n-grams."""
    grams = []
    for text in texts:
        words = text.casefold().split()
        grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """Return the mean BLEU of every text against all others, 0 to 100 (Zhu et al. 2018, arXiv 1802.01886).

    Lower means more diverse. Raises ConfigError without sacrebleu.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise ConfigError(
            "measure: self_bleu needs sacrebleu; pip install 'moco-metric-generation-diversity[bleu]'"
        ) from None
    bleu = BLEU(effective_order=True)
    scores = [
        bleu.sentence_score(text, [other for j, other in enumerate(texts) if j != i]).score
        for i, text in enumerate(texts)
    ]
    return sum(scores) / len(scores)


def _cosine(a: Vector, b: Vector) -> float:
    norms = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def reference_distance(vector: Vector, references: Sequence[Vector]) -> float:
    """Return 1 - the mean cosine between a vector and the reference vectors."""
    return 1.0 - sum(_cosine(vector, r) for r in references) / len(references)


def pairwise_distance(vectors: Sequence[Vector]) -> float:
    """Return the mean cosine distance over all pairs."""
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i)]
    return sum(1.0 - _cosine(vectors[i], vectors[j]) for i, j in pairs) / len(pairs)


def vendi_score(vectors: Sequence[Vector]) -> float:
    """Return exp(-sum l log l) over the eigenvalues l of K/n, K the cosine kernel (Friedman & Dieng, arXiv 2210.02410).

    1 if all vectors point one way, n if all are orthogonal.
    """
    import numpy as np

    matrix = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix = np.divide(matrix, norms, out=np.zeros_like(matrix), where=norms > 0)
    kernel = matrix @ matrix.T
    np.fill_diagonal(kernel, 1.0)
    values = np.linalg.eigvalsh(kernel / len(vectors))
    values = values[values > 1e-12]
    return float(np.exp(-np.sum(values * np.log(values))))
