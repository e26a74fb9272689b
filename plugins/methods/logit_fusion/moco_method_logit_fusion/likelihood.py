"""Weights by likelihood: which mixture of the members gives the dev references the highest probability.

The members are scored once at the reference positions, teacher-forced; then the weights are found without any further
forward. For ``prob`` that is the EM algorithm for a mixture of fixed components, whose likelihood is concave in
the weights and never falls.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

import moco_toolkit_decoding as decoding
from moco_core import Context, Example, Pool
from moco_core.errors import ConfigError

__all__ = ["ReferenceScores", "fit_weights", "reference_scores"]

MEMORY = 1 << 30
"""Bytes that the full distributions at reference positions may take; positions beyond it are left out."""


@attrs.frozen(eq=False)
class ReferenceScores:
    """``chosen`` float32 (N, T): each member's log-probability of each reference token. ``full`` float16 (N, T, V) or None,
    all their log-probabilities, and ``tokens`` int64 (T,) the reference ids."""

    chosen: Tensor
    tokens: Tensor
    full: Tensor | None = None


async def reference_scores(pool: Pool, dev: Sequence[Example], context: Context, *, full: bool) -> ReferenceScores:
    """Score the first reference of every dev example under every model. ConfigError if there is none."""
    usable = [e for e in dev if e.references]
    if not usable:
        raise ConfigError("weights: nll needs dev examples with reference texts; use search or dev")

    async def one(example: Example, scope: Context) -> list[tuple[tuple[int, ...], Tensor, Tensor | None]]:
        async def ask(i: int) -> tuple[tuple[int, ...], Tensor, Tensor | None]:
            session = await decoding.open_session(scope, pool[i], example.question)
            ids = tuple(session.vocabulary.encode(example.references[0].encode()))
            traced = await session.trace(ids, full=full)
            session.close()
            return ids, torch.tensor(traced.logprobs), traced.full

        return await scope.gather(ask(i) for i in range(len(pool)))

    chosen: list[Tensor] = []
    whole: list[Tensor] = []
    tokens: list[int] = []
    for rows in await context.each(usable, one, label="references"):
        ids = rows[0][0]
        if any(r[0] != ids for r in rows):
            raise ConfigError(
                "weights: nll needs one tokenizer, since it compares models token by token; use search or dev"
            )
        size = min((r[2].shape[-1] for r in rows if r[2] is not None), default=0)
        if full and whole and (len(tokens) + len(ids)) * size * 2 * len(pool) > MEMORY:
            context.warn(f"weights=nll uses the first {len(tokens)} reference tokens; more do not fit into 1 GiB")
            break
        tokens += ids
        chosen.append(torch.stack([r[1] for r in rows]))
        if full:
            whole.append(torch.stack([r[2][: len(ids), :size] for r in rows if r[2] is not None]))
    return ReferenceScores(torch.cat(chosen, 1), torch.tensor(tokens), torch.cat(whole, 1) if full else None)


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
    uses gradient descent on theta, w = softmax(theta), keeping the best point seen.
    """
    n = scores.chosen.shape[0]
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
    logits = [scores.full[i].float() for i in range(n)]
    theta = torch.zeros(n, requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=0.1)
    best: tuple[float, list[float]] | None = None
    history = []
    for _ in range(steps + 1):
        weights = theta.softmax(0)
        loss = _fused_nll(weights, logits, scores.tokens, combine, temperatures)
        history.append(float(loss.detach()))
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
