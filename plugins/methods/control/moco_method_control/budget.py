"""The best single model, asked again and again until it has used as much as another system."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import attrs

from moco_core import Answer, CallRecord, Context, Generation, Model, Question, Reply, Sampling

__all__ = ["Price", "choose", "sample", "spent"]


class Price(NamedTuple):
    """Money per million prompt and completion tokens; tokens themselves where ``unit`` says so."""

    prompt: float
    completion: float


TOKENS = Price(1e6, 1e6)


def prices(models: Sequence[Model], asked: Sequence[str]) -> dict[str, Price]:
    """Return the list prices of the models that were asked; one token is one where any of them has none."""
    listed = {m.name: Price(*m.prices) for m in models if m.prices is not None and any(m.prices)}
    return listed if all(name in listed for name in asked) else {}


def spent(calls: Sequence[CallRecord], listed: dict[str, Price]) -> float:
    """Return what calls cost: money at list price, else tokens read and written."""
    return math.fsum(_cost(c.usage.prompt_tokens, c.usage.completion_tokens, listed.get(c.model)) for c in calls)


def _cost(prompt: int, completion: int, price: Price | None) -> float:
    each = price or TOKENS
    return (prompt * each.prompt + completion * each.completion) / 1e6


async def sample(
    context: Context,
    model: Model,
    question: Question,
    budget: float,
    *,
    listed: dict[str, Price],
    sampling: Sampling,
    most: int,
) -> tuple[list[Generation], float]:
    """Return the model's replies, the first decoded as the run says, until they have cost ``budget``; and what they cost.

    The last one may go over it: the control has never less than what it is compared with, unless ``most`` ends it.
    """
    replies, cost, price = [await context.generate(model, question)], 0.0, listed.get(model.name)
    while True:
        usage = replies[-1].usage
        used = _cost(usage.prompt_tokens, usage.completion_tokens, price)
        cost += used
        if cost >= budget or not used or len(replies) >= most:
            return replies, cost
        replies.append(await context.generate(model, question, sampling, sample=len(replies)))


def choose(context: Context, question: Question, replies: Sequence[Generation]) -> tuple[Reply, list[Answer]]:
    """Return the reply that stands for the most frequent answer, and all answers.

    Of answers that are equally frequent, and where none can be read, the most probable reply by mean log-probability wins;
    without log-probabilities the first.
    """
    answers = [context.read(question, reply.text) for reply in replies]
    counts = Counter(a.key for a in answers if a.key is not None)
    most = max(counts.values(), default=0)
    able = [i for i, a in enumerate(answers) if not most or (a.key is not None and counts[a.key] == most)]
    best = max(able, key=lambda i: (_confidence(replies[i]), -i))
    key = answers[best].key
    first = next(i for i in able if answers[i].key == key) if key is not None else best
    return Reply.of(replies[first]), answers


def _confidence(reply: Generation) -> float:
    found = reply.token_logprobs
    return math.fsum(found) / len(found) if found else -math.inf


def warmed(sampling: Sampling, temperature: float) -> Sampling:
    """Return settings under which copies differ."""
    return attrs.evolve(sampling, temperature=temperature) if sampling.greedy else sampling
