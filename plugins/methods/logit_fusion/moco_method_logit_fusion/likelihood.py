"""Weights by likelihood: which mixture of the members gives the dev references the highest probability.

The members are scored once at the reference positions, teacher-forced; then the weights are found without any further
forward. For ``prob`` that is the EM algorithm for a mixture of fixed components, whose likelihood is concave in
the weights and never falls.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

import moco_toolkit_decoding as decoding
from moco_core import ConfigError, Context, Example, Pool, plain
from moco_method_logit_fusion.options import Options

__all__ = ["ReferenceScores", "fit_weights", "likelihood_weights", "rounded"]

MEMORY = 1 << 30
"""Bytes that the full distributions at reference positions may take; positions beyond it are left out."""
CHUNK = 32
"""Examples whose full distributions are asked for at once."""


@attrs.frozen(eq=False)
class ReferenceScores:
    """``chosen`` float32 (N, T): each member's log-probability of each reference token. ``full`` float16 (N, T, V) or None,
    all their log-probabilities, and ``tokens`` int64 (T,) the reference ids."""

    chosen: Tensor
    tokens: Tensor
    full: Tensor | None = None


async def likelihood_weights(pool: Pool, options: Options, dev: Sequence[Example], context: Context) -> list[float]:
    """Return the weights under which the fused model gives the dev references the highest likelihood, computed once.

    Raises ConfigError if no example has a reference.
    """
    texts = await context.each(dev, decoding.gold_text)
    usable = [(e, text) for e, text in zip(dev, texts, strict=True) if text]
    if not usable:
        raise ConfigError("weights: nll needs dev examples with reference texts; use search or dev")
    temperatures = options.temperatures(len(pool))
    # a plain mixture needs the reference tokens' probabilities alone
    full = options.combine != "prob" or bool(temperatures)

    async def compute(spent: decoding.Spent) -> dict[str, Any]:
        scores, read = await _reference_scores(pool, usable, context, spent, full=full)
        weights, history = await asyncio.to_thread(fit_weights, scores, options.combine, temperatures)
        return {"weights": rounded(weights), "history": history, "read": read}

    what = {
        "kind": "logit_fusion.likelihood",
        "version": 1,
        "texts": [[plain(e.question.messages()), text] for e, text in usable],
        "combine": options.combine,
        "temperatures": temperatures,
    }
    found = await decoding.fit_once(context, what, list(pool), compute)
    if found["read"] < len(usable):
        context.warn(f"weights=nll uses the first {found['read']} references; more do not fit into 1 GiB")
    history: list[float] = found["history"]
    context.note(nll_first=history[0], nll_last=history[-1], steps=len(history) - 1)
    weights: list[float] = found["weights"]
    return weights


def rounded(weights: Sequence[float], digits: int = 4) -> list[float]:
    """Return weights of so many decimals that sum to 1: what the last bits of a forward decide is left out of them."""
    out = [round(w, digits) for w in weights]
    top = out.index(max(out))
    out[top] = round(out[top] + 1 - sum(out), digits)
    return out


async def _reference_scores(
    pool: Pool, usable: Sequence[tuple[Example, str]], context: Context, spent: decoding.Spent, *, full: bool
) -> tuple[ReferenceScores, int]:
    """Score the texts under every model; return the scores and how many texts they hold."""
    texts = {example.id: text for example, text in usable}

    async def one(example: Example, scope: Context) -> tuple[list[int], list[Any]]:
        sessions = await scope.gather(decoding.open_step_session(scope, model, example.question) for model in pool)
        try:
            ids = [session.vocabulary.encode(texts[example.id].encode()) for session in sessions]
            if any(other != ids[0] for other in ids):
                raise ConfigError(
                    "weights: nll needs one tokenizer, since it compares models token by token; use search or dev"
                )
            sizes = {session.vocabulary.size for session in sessions}
            size = min(sizes) if len(sizes) > 1 else None
            traced = await scope.gather(session.trace(ids[0], full=full, size=size) for session in sessions)
        finally:
            for session in sessions:
                session.close()
            spent.add(scope)
        return ids[0], traced

    chosen: list[Tensor] = []
    whole: list[Tensor] = []
    tokens: list[int] = []

    def joined() -> ReferenceScores:
        return ReferenceScores(torch.cat(chosen, 1), torch.tensor(tokens), torch.cat(whole, 1) if full else None)

    examples = [example for example, _ in usable]
    step = CHUNK if full else len(examples)
    for at in range(0, len(examples), step):
        for ids, traced in await context.each(examples[at : at + step], one, label="references"):
            if full:
                tables = torch.stack([t.full[: len(ids)] for t in traced])
                if whole and (len(tokens) + len(ids)) * tables[:, 0].numel() * tables.element_size() > MEMORY:
                    return joined(), len(chosen)
                whole.append(tables)
            chosen.append(torch.stack([torch.tensor(t.logprobs) for t in traced]))
            tokens += ids
    return joined(), len(chosen)


def fit_weights(
    scores: ReferenceScores,
    combine: str,
    temperatures: Sequence[float] = (),
    *,
    steps: int = 200,
    tolerance: float = 1e-7,
) -> tuple[list[float], list[float]]:
    """Return the weights and the mean negative log-likelihood before and after every step, from uniform weights.

    ``prob`` without member temperatures uses EM: r_it = w_i p_i(y_t) / sum_j w_j p_j(y_t), w_i = mean_t r_it. Everything else
    uses gradient descent on theta, w = softmax(theta), keeping the best point seen. Raises ConfigError where the scores are
    not finite.
    """
    n = scores.chosen.shape[0]
    if not scores.chosen.isfinite().all():
        raise ConfigError("weights: nll met scores of references that are not finite; check the models' weights and dtype")
    if combine == "prob" and scores.full is None:
        logp = scores.chosen.double()
        weights = torch.full((n,), 1 / n, dtype=torch.float64)
        history = [_mixture_nll(weights, logp)]
        for _ in range(steps):
            joint = weights.log()[:, None] + logp
            weights = (joint - joint.logsumexp(0)).exp().mean(1)
            history.append(_mixture_nll(weights, logp))
            if history[-2] - history[-1] < tolerance:
                break
        return weights.tolist(), history
    assert scores.full is not None
    # ids that some tokenizer leaves undefined have no say, as when the fused model writes; their gradient would be NaN
    defined = scores.full.isneginf().any(1).any(0).logical_not()
    logits = [scores.full[i][:, defined].float() for i in range(n)]
    tokens = (defined.cumsum(0) - 1)[scores.tokens]
    theta = torch.zeros(n, requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=0.1)
    best: tuple[float, list[float]] | None = None
    history = []
    for _ in range(steps + 1):
        weights = theta.softmax(0)
        loss = _fused_nll(weights, logits, tokens, combine, temperatures)
        history.append(float(loss.detach()))
        if not math.isfinite(history[-1]):
            raise ConfigError("weights: nll met scores that are not finite; check the models' weights and dtype")
        if best is None or history[-1] < best[0]:
            best = (history[-1], weights.detach().tolist())
        if len(history) > 20 and abs(history[-20] - history[-1]) < tolerance * 100:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert best is not None
    return best[1], [history[0], best[0]]


def _mixture_nll(weights: Tensor, logp: Tensor) -> float:
    return float(-(weights.log()[:, None] + logp).logsumexp(0).mean())


def _fused_nll(
    weights: Tensor, logits: Sequence[Tensor], tokens: Tensor, combine: str, taus: Sequence[float]
) -> Tensor:
    """The mean negative log-likelihood (a scalar with a gradient in ``weights``) of the reference under the fusion."""
    logp = torch.stack([(z / (taus[i] if taus else 1.0)).log_softmax(-1) for i, z in enumerate(logits)])
    logw = weights.log()[:, None, None]
    if combine == "prob":
        fused = (logw + logp).logsumexp(0)
    elif combine == "max":
        fused = (logw + logp).max(0).values
    else:
        fused = (weights[:, None, None] * logp).sum(0)
    return -fused.log_softmax(-1).gather(-1, tokens[:, None]).mean()
