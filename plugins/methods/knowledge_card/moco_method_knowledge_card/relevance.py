"""How much a passage has to do with a question, by the words they share: TF-IDF cosine and BM25. Pure functions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["bm25", "tfidf", "words"]

_WORD = re.compile(r"(?u)\b\w\w+\b")  # scikit-learn's: two characters or more


def words(text: str) -> list[str]:
    """Return the lowercased words of a text."""
    return _WORD.findall(text.lower())


def tfidf(query: str, passages: Sequence[str]) -> list[float]:
    """Return the cosine of every passage with the query, as scikit-learn's TfidfVectorizer weighs words.

    Document frequencies are those of the query and the passages together, smoothed by one.
    """
    counts = [Counter(words(text)) for text in (query, *passages)]
    frequency = Counter(word for count in counts for word in count)
    idf = {word: math.log((1 + len(counts)) / (1 + n)) + 1 for word, n in frequency.items()}
    vectors = [{word: n * idf[word] for word, n in count.items()} for count in counts]
    norms = [math.sqrt(math.fsum(x * x for x in vector.values())) for vector in vectors]
    first, out = vectors[0], []
    for vector, norm in zip(vectors[1:], norms[1:], strict=True):
        dot = math.fsum(x * first.get(word, 0.0) for word, x in vector.items())
        out.append(dot / (norm * norms[0]) if norm and norms[0] else 0.0)
    return out


def bm25(query: str, passages: Sequence[str], *, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Return the BM25 score of every passage for the query.

    Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009, with idf log(1 + (N - n + 0.5) / (n + 0.5)), which
    stays positive among few passages.
    """
    counts = [Counter(words(text)) for text in passages]
    if not counts:
        return []
    lengths = [count.total() for count in counts]
    mean = math.fsum(lengths) / len(lengths) or 1.0
    frequency = Counter(word for count in counts for word in count)
    idf = {word: math.log(1 + (len(counts) - n + 0.5) / (n + 0.5)) for word, n in frequency.items()}
    asked = words(query)
    return [
        math.fsum(
            idf.get(word, 0.0) * count[word] * (k1 + 1) / (count[word] + k1 * (1 - b + b * length / mean))
            for word in asked
        )
        for count, length in zip(counts, lengths, strict=True)
    ]
