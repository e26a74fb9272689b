"""How different agents are: agreement of first answers, overlap of their words, distance of their embeddings, and how
unlikely a first reply is under the other agents' generators.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from moco_core import Context, Model, ModelCallError, Question
from moco_method_multiagent_finetuning.debating import agreement
from moco_toolkit_discussion import Talk
from moco_toolkit_voting import cosine, token_f1

__all__ = ["alike", "apart"]


def alike(talks: Sequence[Talk]) -> dict[str, float | None]:
    """Return the mean agreement of two agents' first answers (those that can be read), and 1 - the overlap of their words."""
    agreed, overlaps = [], []
    for talk in talks:
        supports = agreement(talk)
        keys = [answer.key for answer in talk.answers[0] if answer.key is not None]
        agreed += [supports(a, b) for a, b in itertools.combinations(keys, 2)]
        overlaps += [token_f1(a, b) for a, b in itertools.combinations([t for t in talk.texts[0] if t], 2)]
    overlap = _mean(overlaps)
    return {"consensus": _mean(agreed), "word_dissimilarity": None if overlap is None else 1 - overlap}


async def apart(
    said: Sequence[tuple[Question, Sequence[str | None]]],
    generators: Sequence[Model],
    embedder: Model | None,
    context: Context,
) -> dict[str, float | None]:
    """Return 1 - the cosine of two agents' first replies, and the negative log-likelihood per token of a reply under the
    generators of the others (nats), both as means. None where no model can tell.
    """

    async def one(question: Question, texts: Sequence[str | None]) -> tuple[list[float], list[float]]:
        scope = context.on(question)
        known = [(n, text) for n, text in enumerate(texts) if text]
        distances: list[float] = []
        if embedder is not None and len(known) > 1:
            vectors = await scope.embed(embedder, [text for _, text in known])
            distances = [1 - cosine(u, v) for u, v in itertools.combinations(vectors, 2)]
        asked = [
            (text, other) for n, text in known for m, other in enumerate(generators) if m != n and other.can("score")
        ]
        scored = await scope.gather(
            (scope.score(other, question, [text]) for text, other in asked), tolerate=ModelCallError
        )
        likely = [found[0] for found in scored if not isinstance(found, ModelCallError) and found[0].token_logprobs]
        return distances, [-one.logprob / len(one.token_logprobs) for one in likely]

    found = await context.gather(one(question, texts) for question, texts in said)
    return {
        "embedding_dissimilarity": _mean([d for distances, _ in found for d in distances]),
        "cross_nll": _mean([n for _, likely in found for n in likely if math.isfinite(n)]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
