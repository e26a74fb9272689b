"""The three selectors: what is relevant, short and true is kept.

Feng et al., "Knowledge Card", arXiv 2305.09955.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Awaitable, Callable, Sequence

import attrs

from moco_core import Context, Message, Model, ModelCallError, Pool, Question
from moco_method_knowledge_card.cards import Passage
from moco_method_knowledge_card.options import Options
from moco_method_knowledge_card.prompts import bare, shorter, true_or_false
from moco_method_knowledge_card.relevance import bm25, tfidf
from moco_toolkit_answers import read_choice, strip_reasoning
from moco_toolkit_quoting import escape
from moco_toolkit_voting import cosine

__all__ = ["Facts", "Kept", "brief", "check", "draw", "ranked", "relevance_of", "select"]

_ORDERS = (("true", "false"), ("false", "true"))
_SENTENCE = re.compile(r"[.!?…。！？][\"')\]]*(?=\s|$)")
Facts = Callable[[Sequence[str], Question, Context], Awaitable[Sequence[float] | None]]
"""Returns how probably each passage is true, in [0, 1]; None where nobody can tell."""


@attrs.frozen
class Kept:
    """A passage that is shown, and what was measured of it."""

    passage: Passage
    relevance: float | None = None
    truth: float | None = None


async def select(
    passages: Sequence[Passage],
    keep: int,
    pool: Pool,
    question: Question,
    context: Context,
    options: Options,
    facts: Facts,
    *,
    number: int = 0,
) -> list[Kept]:
    """Return at most ``keep`` passages, the best first: the n2 most relevant, shortened, then the truest of them.

    Where nobody can tell what is true, the most relevant. ``number`` tells several selections of one question apart.
    """
    if not passages or keep == 0:
        return []
    if options.mode == "plain":
        return [Kept(passage) for passage in passages]
    scores: list[float] | None = None
    order = list(range(len(passages)))
    if len(passages) > 1:
        scores = await relevance_of(bare(question), [p.text for p in passages], pool, context, options)
        order = ranked(scores)[: options.n2]
    short = await context.gather(brief(passages[i], pool, context, options) for i in order)
    kept = [Kept(p, None if scores is None else scores[i]) for i, p in zip(order, short, strict=True)]
    truths = await facts([k.passage.text for k in kept], question, context)
    if truths is None:
        return kept[:keep]
    kept = [attrs.evolve(k, truth=float(f)) for k, f in zip(kept, truths, strict=True)]
    rng = context.rng("knowledge_card", "facts", options.seed, number)
    return [kept[i] for i in draw(truths, keep, rng if options.selection == "sample" else None)]


def ranked(scores: Sequence[float]) -> list[int]:
    """Return the places by score, best first; ties stay in order (up to 1e-12)."""
    return sorted(range(len(scores)), key=lambda i: -round(scores[i], 12))


async def relevance_of(
    query: str, passages: Sequence[str], pool: Pool, context: Context, options: Options
) -> list[float]:
    """Return how much every passage has to do with a query."""
    if options.embeds:
        named = options.embedder
        model = (
            next(m for m in pool if m.can("embed")) if named is None else pool.named(named, "knowledge_card.embedder")
        )
        first, *rest = await context.embed(model, [query, *passages])
        return [cosine(first, vector) for vector in rest]
    return (bm25 if options.relevance == "bm25" else tfidf)(query, passages)


async def brief(passage: Passage, pool: Pool, context: Context, options: Options) -> Passage:
    """Return a passage of at most ``max_passage_tokens``: as it is, summarised, or cut at the end of a sentence."""
    if passage.tokens <= options.max_passage_tokens and passage.tokens:
        return passage
    room = math.floor(options.max_passage_tokens * passage.ratio)
    if len(passage.text) <= room:
        return passage
    if options.summarizer is not None:
        model = pool.named(options.summarizer, "knowledge_card.summarizer")
        sampling = attrs.evolve(
            options.knowledge(context.sampling, sampled=False), max_new_tokens=options.max_passage_tokens
        )
        try:
            reply = await context.role("summarizer").generate(model, shorter(passage.text), sampling, sample=0)
        except ModelCallError:
            reply = None
        if reply is not None and (text := (strip_reasoning(reply.text) or "").strip()):
            return attrs.evolve(passage, text=escape(text))
    return attrs.evolve(passage, text=_cut(passage.text, room))


def _cut(text: str, room: int) -> str:
    """Return the sentences of a text that end within so many characters; without any, its words."""
    ends = [match.end() for match in _SENTENCE.finditer(text) if match.end() <= room]
    if ends:
        return text[: ends[-1]]
    return text[: room + 1].rsplit(None, 1)[0][:room] if " " in text[: room + 1].strip() else text[:room]


async def check(passages: Sequence[str], checker: Model, context: Context) -> list[float]:
    """Return P(true) of every passage as a model sees it, averaged over both orders of its labels.

    Its labels are scored where it can; else it writes one. What cannot be read or asked is 0.5.
    """

    context = context.role("checker")

    async def one(passage: str, labels: tuple[str, str]) -> float:
        prompt = [Message("user", true_or_false(passage, labels))]
        if checker.can("score"):
            a, b = (score.logprob for score in await context.score(checker, prompt, ("A", "B")))
            gap = max(-700.0, b - a if labels[0] == "true" else a - b)  # log P(false) - log P(true)
            return 1 / (1 + math.exp(min(gap, 700.0)))
        reply = await context.generate(checker, prompt, attrs.evolve(context.sampling, temperature=0.0), sample=0)
        said = read_choice(Question(id="", prompt="", choices=labels), strip_reasoning(reply.text) or "")
        return 0.5 if said.key is None else float(labels[int(said.key)] == "true")

    pairs = [(passage, labels) for passage in passages for labels in _ORDERS]
    found = await context.gather((one(*pair) for pair in pairs), tolerate=ModelCallError)
    values = [0.5 if isinstance(value, ModelCallError) else value for value in found]
    return [(values[i] + values[i + 1]) / 2 for i in range(0, len(values), 2)]


def draw(truths: Sequence[float], count: int, rng: random.Random | None) -> list[int]:
    """Return the places of so many passages: the truest ones, or, with a generator, a draw among twice as many.

    The draw is without replacement, in proportion to truth; what is certainly false comes last, in order of truth.
    """
    best = ranked(truths)
    if rng is None:
        return best[:count]
    left, out = best[: 2 * count], list[int]()
    while left and len(out) < count:
        weights = [max(0.0, truths[i]) for i in left]
        place = rng.choices(range(len(left)), weights)[0] if math.fsum(weights) > 0 else 0
        out.append(left.pop(place))
    return out
