"""Choosing one token per row, so that a row's choice depends on nothing but its own logits and its own generator.

Order of the filters: temperature, top-k, top-p, min-p, as in transformers' ``generate``. After sorting by descending logit
(ties to the lowest id) each of them keeps a prefix of the sorted list, so that their combination is the shortest of the
prefixes. One uniform float64 per row and step, drawn on the CPU, inverts the cumulative distribution. Generation, sessions and
joint decoding all choose here: at equal scores and seeds they say the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from moco_core.types import Sampling

__all__ = ["Settings", "choose", "first_argmax", "log_probabilities", "pick", "sampling_device"]

SHORTLIST = 128
"""Candidates sorted per row before falling back to sorting the whole vocabulary."""


@attrs.frozen
class Settings:
    """The sampling settings of a batch as tensors on the device of the logits.

    ``sampled`` holds the indices of the rows that sample; the other fields are aligned with it. It is empty for a greedy
    batch, which then costs no sorting at all.
    """

    sampled: list[int]
    index: Tensor
    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    min_p: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sampling], device: torch.device) -> Settings:
        sampled = [i for i, s in enumerate(rows) if not s.greedy]
        chosen = [rows[i] for i in sampled]

        def column(values: list[float] | list[int], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device).unsqueeze(-1)

        return cls(
            sampled,
            torch.tensor(sampled, dtype=torch.long, device=device),
            column([s.temperature for s in chosen], torch.float32),
            column([s.top_p for s in chosen], torch.float64),
            column([s.top_k for s in chosen], torch.long),
            column([s.min_p for s in chosen], torch.float32),
        )


def sampling_device(device: torch.device) -> torch.device:
    """Return where to sample from logits on ``device``: there, unless it has no float64 to sum in (MPS)."""
    return torch.device("cpu") if device.type == "mps" else device


def first_argmax(logits: Tensor) -> Tensor:
    """Return the lowest index of the maximum of each row: (B, V) -> (B,). A row whose maximum is NaN or infinite gives V."""
    return _finite(*logits.max(-1), logits.shape[-1])


def _finite(best: Tensor, index: Tensor, size: int) -> Tensor:
    # of equal maxima ``max`` returns the first one, and NaN counts as the largest
    return torch.where(torch.isfinite(best), index, size)


def log_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the natural log-probability of one token per row from raw logits: (B, V) float32, (B,) -> (B,)."""
    picked = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return picked - torch.logsumexp(logits, -1)


def pick(logits: Tensor, settings: Settings, generators: Sequence[random.Random | None]) -> tuple[Tensor, Tensor]:
    """Choose as :func:`choose` does; also return the natural log-probabilities of the choices, float32 (B,)."""
    if settings.sampled:
        tokens = choose(logits, settings, generators)
        return tokens, log_probabilities(logits, tokens.clamp(max=logits.shape[-1] - 1))
    best, index = logits.max(-1)
    # the choice is the largest logit: one pass over the others gives its share
    return _finite(best, index, logits.shape[-1]), (logits - best.unsqueeze(-1)).exp_().sum(-1).log_().neg_()


def choose(logits: Tensor, settings: Settings, generators: Sequence[random.Random | None]) -> Tensor:
    """Choose one token per row.

    ``logits``: raw or normalised, float32 (B, V). ``generators``: one per row; those of sampled rows are advanced by exactly
    one draw, the others are not used and may be None. Returns int64 (B,); V marks a row whose largest logit is not finite.
    """
    if not settings.sampled:
        return first_argmax(logits)
    everyone = len(settings.sampled) == logits.shape[0]
    rows = logits if everyone else logits.index_select(0, settings.index)
    mine = [g for i in settings.sampled if (g := generators[i]) is not None]
    draws = torch.tensor([g.random() for g in mine], dtype=torch.float64).to(logits.device).unsqueeze(-1)
    drawn = _sample(rows, settings, draws)
    if everyone:
        return drawn
    out = first_argmax(logits)
    out[settings.index] = drawn
    return out


def _sample(logits: Tensor, settings: Settings, draws: Tensor) -> Tensor:
    size = logits.shape[-1]
    best = logits.amax(-1, keepdim=True)
    weights = torch.exp((logits - best) / settings.temperature)
    total = weights.sum(-1, keepdim=True, dtype=torch.float64)
    k = min(SHORTLIST, size)
    order = _shortlist(logits, k)
    token, settled = _invert(order, weights, total, logits, settings, draws, complete=k == size)
    if not bool(settled.all()):  # a flat distribution, or ties across the end of the shortlist: sort everything
        rest = (~settled).nonzero().squeeze(-1)
        some = attrs.evolve(
            settings,
            temperature=settings.temperature[rest],
            top_p=settings.top_p[rest],
            top_k=settings.top_k[rest],
            min_p=settings.min_p[rest],
        )
        order = _ranked(logits[rest])
        full, _ = _invert(order, weights[rest], total[rest], logits[rest], some, draws[rest], complete=True)
        token[rest] = full
    finite = torch.isfinite(total).squeeze(-1) & torch.isfinite(best).squeeze(-1)
    return torch.where(finite, token, torch.full_like(token, size))


def _shortlist(logits: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest logits per row, descending, ties to the lowest id: (B, V) -> (B, k)."""
    if k == logits.shape[-1]:
        return _ranked(logits)
    # topk promises no order among ties: put the shortlist in order of id, then sort it stably by value
    ids = logits.topk(k, -1).indices.sort(-1).values
    return ids.gather(-1, logits.gather(-1, ids).sort(dim=-1, descending=True, stable=True).indices)


def _ranked(logits: Tensor) -> Tensor:
    """Return all indices of each row by descending logit, ties to the lowest id: float32 (B, V) -> (B, V)."""
    if logits.device.type != "cpu":
        return logits.sort(dim=-1, descending=True, stable=True).indices
    # numpy sorts whole numbers three times as fast: each is made of a logit's bits, in the order of floats, and its index
    bits = (logits + 0.0).numpy().view(np.int32)  # -0.0 is 0.0
    ascending = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    keys = np.left_shift(~ascending, 32, dtype=np.int64) | np.arange(logits.shape[-1])
    keys.sort(axis=-1)
    return torch.from_numpy(keys & 0xFFFFFFFF)


def _invert(
    order: Tensor, weights: Tensor, total: Tensor, logits: Tensor, settings: Settings, draws: Tensor, *, complete: bool
) -> tuple[Tensor, Tensor]:
    """Return the drawn token per row, and whether the sorted candidates ``order`` (B, k) were enough to know it."""
    size = weights.shape[-1]
    heights = weights.gather(-1, order)
    cumulative = heights.double().cumsum(-1)
    k = order.shape[-1]
    last = torch.full_like(settings.top_k, size)
    by_k = torch.where(settings.top_k > 0, settings.top_k.clamp(max=size), last)
    mass_k = torch.where(by_k <= k, cumulative.gather(-1, (by_k.clamp(max=k) - 1)), total)
    # the smallest prefix whose mass reaches top_p of what top_k kept
    by_p = (cumulative < settings.top_p * mass_k).sum(-1, keepdim=True) + 1
    by_p = torch.where(settings.top_p < 1, by_p, last)
    # the maximum has weight 1, so min_p is a bound on the weights themselves
    by_m = (heights >= settings.min_p).sum(-1, keepdim=True)
    by_m = torch.where((by_m == k) & (not complete), last, by_m)
    kept = torch.minimum(torch.minimum(by_k, by_p), by_m).clamp(min=1)
    known = kept <= k
    mass = torch.where(known, cumulative.gather(-1, kept.clamp(max=k) - 1), total)
    place = (cumulative < draws * mass).sum(-1, keepdim=True)
    place = torch.minimum(place, kept - 1)
    if complete:
        settled = torch.ones_like(known)
        place = place.clamp(max=k - 1)
    else:
        # top_k between k and V: neither its mass nor its end is known
        vague = ((by_k > k) & (by_k < size)) | ((by_p > k) & (settings.top_p < 1)) | ((kept > k) & (kept < size))
        vague = vague | ((kept >= size) & (by_m >= size) & (settings.min_p > 0))
        # a token is in the right order only if it is larger than everything outside the shortlist
        edge = heights[:, -1:]
        settled = ~vague & (place < k)
        place = place.clamp(max=k - 1)
        settled &= heights.gather(-1, place) > edge
    return order.gather(-1, place).squeeze(-1), settled.squeeze(-1)
