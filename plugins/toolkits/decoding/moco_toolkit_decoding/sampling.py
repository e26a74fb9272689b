"""Choosing a token from a log-distribution: warped once, seeded per row, greedy ties to the lowest id."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from moco_core.types import Sampling

__all__ = ["choose", "greedy", "sample", "warp"]


def greedy(scores: Tensor) -> Tensor:
    """Return the index of the largest entry of each row of (B, V); equal maxima give the lowest id, as ``max`` promises."""
    return scores.max(-1).indices


def warp(logp: Tensor, settings: Sampling) -> Tensor:
    """Return log-probabilities (B, V) after temperature, top-k, top-p and min-p, in this order, unnormalised.

    The order is that of transformers' ``generate``. top-p keeps the smallest set of most probable tokens whose mass reaches
    p, at least one token; min-p keeps what has at least that share of the top probability.
    """
    if settings.greedy:
        return logp
    scores = logp / settings.temperature
    vocabulary = scores.shape[-1]
    if 0 < settings.top_k < vocabulary:
        bound = scores.topk(settings.top_k, -1).values[:, -1:]
        scores = scores.masked_fill(scores < bound, -torch.inf)
    if settings.top_p < 1:
        ordered, index = scores.sort(dim=-1, descending=True, stable=True)
        mass = ordered.softmax(-1)
        drop = mass.cumsum(-1) - mass >= settings.top_p
        drop[:, 0] = False
        scores = scores.masked_fill(torch.zeros_like(drop).scatter(-1, index, drop), -torch.inf)
    if settings.min_p > 0:
        bound = scores.max(-1, keepdim=True).values + torch.log(torch.tensor(settings.min_p)).item()
        scores = scores.masked_fill(scores < bound, -torch.inf)
    return scores


def sample(scores: Tensor, uniforms: Sequence[float]) -> Tensor:
    """Draw one id per row of unnormalised log-probabilities (B, V) by inverting the cumulative distribution.

    Tokens are ordered by descending probability, then id; sums are float64. A row depends on its own scores and its own
    uniform number in [0, 1) only, so a row drawn in a batch equals the row drawn alone.
    """
    ordered, index = scores.float().sort(dim=-1, descending=True, stable=True)
    mass = (ordered - ordered[:, :1]).double().exp().cumsum(-1)
    u = torch.tensor(uniforms, dtype=torch.float64, device=scores.device)[:, None]
    place = torch.searchsorted(mass, u * mass[:, -1:]).clamp(max=scores.shape[-1] - 1)
    # a zero mass in front of the first token cannot be: the first is the most probable one
    return index.gather(-1, place).squeeze(-1)


def choose(logp: Tensor, settings: Sequence[Sampling], generators: Sequence[random.Random | None]) -> Tensor:
    """Choose one token per row: argmax for greedy rows, a draw from the warped distribution for the others.

    ``generators[i]`` gives exactly one uniform number per step of row i, and none for greedy rows.
    """
    groups: dict[Sampling, list[int]] = {}
    for i, setting in enumerate(settings):
        groups.setdefault(setting, []).append(i)
    if len(groups) == 1:
        return _choose(logp, settings[0], generators)
    out = torch.empty(len(settings), dtype=torch.long, device=logp.device)
    for setting, members in groups.items():
        index = torch.tensor(members, device=logp.device)
        out[index] = _choose(logp[index], setting, [generators[i] for i in members])
    return out


def _choose(logp: Tensor, setting: Sampling, generators: Sequence[random.Random | None]) -> Tensor:
    if setting.greedy:
        return greedy(logp)
    return sample(warp(logp, setting), [g.random() if g is not None else 0.0 for g in generators])
