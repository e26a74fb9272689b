"""Confidence in a reply: Chow scores of its tokens, verification by its own author, agreement of samples."""

from __future__ import annotations

import math
import re
from collections import Counter

import attrs

from moco_core import Context, Generation, Model, ModelCallError, Question, Sampling, Usage
from moco_method_cascade.believing import believed
from moco_method_cascade.head import Head
from moco_method_cascade.options import Options
from moco_method_cascade.prompts import FALSE, TRUE, p_true, self_report
from moco_method_cascade.quantiles import chow_average, chow_quantile, chow_sum
from moco_toolkit_quoting import transcript
from moco_toolkit_voting import ballots

__all__ = ["Confidence", "measure"]

_VERDICT = re.compile(rf"\W*({TRUE}|{FALSE})\b", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class Confidence:
    """A confidence, and the calls made for it. NaN and minus infinity never reach a finite threshold.

    ``mass`` is what a verifier gives its two verdicts together, where it was scored: near 0, their ratio is noise.
    """

    value: float
    calls: tuple[Generation | Usage, ...] = ()
    mass: float | None = None


async def measure(
    model: Model, question: Question, reply: Generation, context: Context, options: Options, head: Head | Model | None = None
) -> Confidence:
    """Return how sure ``model`` is of its own ``reply``; ``head`` is its level's: a deferral head, or a scorer.

    Minus infinity for an empty reply; NaN where nothing can be told: no log-probabilities came back, the verdict is
    neither true nor false, no sample could be read, or the call failed.
    """
    kind, logprobs = options.confidence, reply.token_logprobs
    if not reply.text.strip():
        return Confidence(value=-math.inf)
    if kind == "chow_sum":
        return Confidence(value=chow_sum(logprobs))
    if kind == "chow_average":
        return Confidence(value=chow_average(logprobs))
    if kind == "chow_quantile":
        return Confidence(value=chow_quantile(logprobs, options.quantile))
    if kind == "deferral":
        return Confidence(value=head.confidence(logprobs) if isinstance(head, Head) else math.nan)
    context = context.role("confidence")
    try:
        if kind == "scorer":
            scorer = head if isinstance(head, Model) else None
            return Confidence(value=await believed(scorer, question, reply.text, context))
        if kind == "agreement":
            sampling = attrs.evolve(options.sampling(context.sampling), temperature=options.agreement_temperature)
            return await _agreement(model, question, context, options.samples, sampling)
        write = p_true if kind == "p_true" else self_report
        return await _verdict(model, write(transcript(question), reply.text), context, options.verify_tokens)
    except ModelCallError:
        return Confidence(value=math.nan)


async def _verdict(model: Model, prompt: str, context: Context, tokens: int) -> Confidence:
    """Return P(True) / (P(True) + P(False)), or 1 and 0 for what the model says if it cannot score."""
    if model.can("score"):
        yes, no = await context.score(model, prompt, [TRUE, FALSE])
        read = Usage(sum(s.prompt_tokens + len(s.token_ids) for s in (yes, no)))
        mass = math.exp(yes.logprob) + math.exp(no.logprob)
        return Confidence(value=_share(yes.logprob, no.logprob), calls=(read,), mass=mass)
    said = await context.generate(model, prompt, Sampling(max_new_tokens=tokens))
    found = _VERDICT.match(said.text)
    value = math.nan if found is None else float(found[1].casefold() == TRUE.casefold())
    return Confidence(value=value, calls=(said,))


async def _agreement(
    model: Model, question: Question, context: Context, samples: int, sampling: Sampling
) -> Confidence:
    """Return the share of ``samples`` replies that give the most frequent answer; unreadable ones count against it."""
    drawn = await context.gather(
        (context.generate(model, question, sampling, sample=k) for k in range(samples)), tolerate=ModelCallError
    )
    replies = [reply for reply in drawn if isinstance(reply, Generation)]
    keys = Counter(a.key for a in ballots(context, question, [r.text for r in replies]) if a.key is not None)
    return Confidence(value=max(keys.values()) / samples if keys else math.nan, calls=tuple(replies))


def _share(a: float, b: float) -> float:
    """Return exp(a) / (exp(a) + exp(b)) without underflow; NaN if both are impossible."""
    if math.isinf(a) and math.isinf(b):
        return math.nan
    if a < b:
        return math.exp(a - b) / (1 + math.exp(a - b))
    return 1 / (1 + math.exp(b - a))
