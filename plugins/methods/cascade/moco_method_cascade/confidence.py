"""Confidence in a reply: Chow scores of its tokens, verification by its own author, agreement of samples."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import attrs

from moco_core import Context, Generation, Model, ModelCallError, Question, Sampling, Usage
from moco_method_cascade import prompts
from moco_toolkit_voting import ballots

__all__ = ["Confidence", "Kind", "chow_average", "chow_quantile", "chow_sum", "measure"]

Kind = Literal["chow_sum", "chow_average", "chow_quantile", "p_true", "self_report", "agreement", "scorer"]

_VERDICT = re.compile(rf"\W*({prompts.TRUE}|{prompts.FALSE})\b", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class Confidence:
    """A confidence and the tokens that its own calls took. NaN and minus infinity never reach a finite threshold."""

    value: float
    usage: Usage = attrs.field(factory=Usage)


def chow_sum(logprobs: Sequence[float]) -> float:
    """Return sum_t log p_t, the log-probability of the reply; NaN without tokens."""
    return math.fsum(logprobs) if logprobs else math.nan


def chow_average(logprobs: Sequence[float]) -> float:
    """Return (1 / T) sum_t log p_t; NaN without tokens."""
    return math.fsum(logprobs) / len(logprobs) if logprobs else math.nan


def chow_quantile(logprobs: Sequence[float], level: float) -> float:
    """Return the ``level``-quantile of {log p_t}, linear between order statistics; NaN without tokens.

    ``level=0`` is the least certain token, 0.5 the median. Gupta et al., arXiv 2404.10136.
    """
    if not logprobs:
        return math.nan
    ordered = sorted(logprobs)
    position = level * (len(ordered) - 1)
    below = min(int(position), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    if ordered[below] == ordered[above]:  # also two equal infinities
        return ordered[below]
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


async def measure(
    kind: Kind,
    model: Model,
    question: Question,
    reply: Generation,
    context: Context,
    *,
    quantile: float,
    samples: int,
    sampling: Sampling,
    verify_tokens: int,
) -> Confidence:
    """Return how sure ``model`` is of its own ``reply``.

    Minus infinity for an empty reply; NaN where nothing can be told: no log-probabilities came back, the verdict is
    neither true nor false, no sample could be read, or the call failed. ``sampling`` is that of the samples of
    ``agreement``.
    """
    if not reply.text.strip():
        return Confidence(value=-math.inf)
    if kind == "chow_sum":
        return Confidence(value=chow_sum(reply.token_logprobs))
    if kind == "chow_average":
        return Confidence(value=chow_average(reply.token_logprobs))
    if kind == "chow_quantile":
        return Confidence(value=chow_quantile(reply.token_logprobs, quantile))
    try:
        if kind == "agreement":
            return await _agreement(model, question, context, samples, sampling)
        write = prompts.p_true if kind == "p_true" else prompts.self_report
        return await _verdict(model, write(question.text(), reply.text), reply, context, verify_tokens)
    except ModelCallError:
        return Confidence(value=math.nan)


async def _verdict(model: Model, prompt: str, reply: Generation, context: Context, tokens: int) -> Confidence:
    """Return P(True) / (P(True) + P(False)), or 1 and 0 for what the model says if it cannot score."""
    if model.can("score"):
        yes, no = await context.score(model, prompt, [prompts.TRUE, prompts.FALSE])
        # scoring reports no usage: the verifier reads the question and the reply once more
        usage = Usage(reply.usage.prompt_tokens + reply.usage.completion_tokens, 0)
        return Confidence(value=_share(yes.logprob, no.logprob), usage=usage)
    said = await context.generate(model, prompt, Sampling(max_new_tokens=tokens))
    found = _VERDICT.match(said.text)
    value = math.nan if found is None else float(found[1].casefold() == prompts.TRUE.casefold())
    return Confidence(value=value, usage=said.usage)


async def _agreement(
    model: Model, question: Question, context: Context, samples: int, sampling: Sampling
) -> Confidence:
    """Return the share of ``samples`` replies that give the most frequent answer; unreadable ones count against it."""
    drawn = await context.gather(
        (context.generate(model, question, sampling, sample=k) for k in range(samples)), tolerate=ModelCallError
    )
    replies = [reply for reply in drawn if isinstance(reply, Generation)]
    keys = Counter(a.key for a in ballots(context, question, [r.text for r in replies]) if a.key is not None)
    usage = sum((reply.usage for reply in replies), Usage())
    return Confidence(value=max(keys.values()) / samples if keys else math.nan, usage=usage)


def _share(a: float, b: float) -> float:
    """Return exp(a) / (exp(a) + exp(b)) without underflow; NaN if both are impossible."""
    if math.isinf(a) and math.isinf(b):
        return math.nan
    if a < b:
        return math.exp(a - b) / (1 + math.exp(a - b))
    return 1 / (1 + math.exp(b - a))
