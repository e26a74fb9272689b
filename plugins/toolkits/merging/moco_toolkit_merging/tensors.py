"""Merging operations on single tensors: the arithmetic of every recipe, in float32 with one cast at the end.

Inputs may be memory-mapped files: nothing here changes one in place. Shapes are those of one parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from moco_core import digest
from moco_toolkit_merging.rules import Rescale, Sparsify, Vote

__all__ = [
    "NotFinite",
    "agree",
    "blockwise",
    "deviations",
    "drop_mask",
    "finite",
    "linear",
    "mean",
    "place",
    "sparsify",
    "trim_mask",
]

_CACHED = 1 << 16  # entries per thread: 256 KiB of float32
_EPSILON = 1e-7  # below this norm a tensor is not rescaled, as in mergekit


class NotFinite(ValueError):
    """A source holds NaN or infinite values."""


def blockwise(
    out: Tensor, tensors: Sequence[Tensor], work: Callable[..., object], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Fill contiguous ``out`` by ``work(block, *parts)``: the same entries of ``out`` and of every one of ``tensors``.

    The blocks are flat, of type ``dtype`` (cast once into ``out`` if that has another), and small enough that everything
    ``work`` does to one happens in the processor's cache: one trip through memory instead of one per operation.
    """
    flat, parts = out.view(-1), [t.reshape(-1) for t in tensors]
    size = _block_size()
    scratch = None if out.dtype == dtype else torch.empty(min(size, flat.numel()), dtype=dtype, device=out.device)
    for start in range(0, flat.numel(), size):
        place = flat[start : start + size]
        block = place if scratch is None else scratch[: place.numel()]
        work(block, *(p[start : start + size] for p in parts))
        if scratch is not None:
            place.copy_(block)
    return out


def _block_size() -> int:
    return _CACHED * torch.get_num_threads()


def linear(
    coefficients: Sequence[float],
    tensors: Sequence[Tensor],
    out: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return sum_i coefficients[i] * tensors[i], accumulated in ``dtype`` in the given order, in ``out`` or a new tensor.

    A coefficient of 0 leaves its input out and a coefficient of 1 does not round, so a one-hot combination is that input
    bit for bit.
    """
    used = [(c, t) for c, t in zip(coefficients, tensors, strict=True) if c != 0]
    if out is None:
        if not len(tensors):
            raise ValueError("nothing to combine")
        out = torch.empty(tensors[0].shape, dtype=dtype, device=tensors[0].device)
    if not used:
        return out.zero_()
    (scale, _), *rest = used
    wide = torch.empty(min(_block_size(), out.numel()), dtype=dtype, device=out.device)

    def work(block: Tensor, first: Tensor, *others: Tensor) -> None:
        block.copy_(first).mul_(scale)
        for (coefficient, _), other in zip(rest, others, strict=True):
            # sums of two types take a slow path: widening first makes this three times as fast
            same = other if other.dtype == dtype else wide[: other.numel()].copy_(other)
            block.add_(same, alpha=coefficient)

    return blockwise(out, [t for _, t in used], work, dtype)


def place(result: Tensor, out: Tensor | None) -> Tensor:
    """Return ``result``, copied into ``out`` if that is given."""
    return result if out is None else out.copy_(result)


def finite(tensor: Tensor) -> bool:
    """Return whether every entry is finite, in one pass and without a mask: NaN and infinities reach sum and extremes."""
    if tensor.numel() == 0 or (tensor.is_floating_point() and math.isfinite(float(tensor.sum()))):
        return True  # a sum that is not may just be too large for its type
    low, high = torch.aminmax(tensor)
    return math.isfinite(float(low)) and math.isfinite(float(high))


def mean(tensors: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the mean of ``tensors`` (Wortsman et al. 2022, arXiv 2203.05482), as first + (sum of deviations) / N.

    Summing deviations from the first instead of the tensors themselves makes the mean of copies exact for any N, where a
    plain float32 sum of three copies is off by one bit.
    """
    return tensors[0].to(dtype) + deviations(tensors, dtype) / len(tensors)


def deviations(tensors: Iterable[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return sum_i (tensors[i] - tensors[0]) in order, consuming them one at a time."""
    rest = iter(tensors)
    first = next(rest).to(dtype)
    total = torch.zeros_like(first)
    for tensor in rest:
        total += tensor.to(dtype) - first
    return total


def trim_mask(tensor: Tensor, density: float) -> Tensor:
    """Return the mask of the k = max(1, int(density * numel)) entries of largest magnitude (TIES, arXiv 2306.01708)."""
    if density >= 1 or tensor.numel() == 0:
        return torch.ones_like(tensor, dtype=torch.bool)
    mask = torch.zeros(tensor.numel(), dtype=torch.bool, device=tensor.device)
    if density > 0:
        k = max(1, int(density * tensor.numel()))
        mask[torch.topk(tensor.abs().flatten(), k, sorted=False).indices] = True
    return mask.view(tensor.shape)


def drop_mask(shape: Sequence[int], density: float, *key: object) -> Tensor:
    """Return a Bernoulli(density) mask that depends on ``key`` alone (DARE, arXiv 2311.03099).

    It comes from a stable digest of the key, usually (seed, tensor name, model index), never from a shared generator, so
    it does not depend on shard layout or tensor order. Masks of one key are nested: a higher density keeps all that a
    lower one keeps.
    """
    generator = torch.Generator().manual_seed(int(digest("drop", *key)[:15], 16))
    return torch.rand(tuple(shape), generator=generator) < density


def sparsify(delta: Tensor, how: Sparsify, density: float, rescale: Rescale, *key: object) -> Tensor:
    """Return a task vector thinned out to ``density``, the fraction kept; ``key`` seeds the random kind.

    ``dare`` drops at random, ``ties`` drops the smallest, ``none`` keeps all. ``inverse_density`` divides what is left by
    the density (an unbiased estimate after random drops), ``l1`` restores the tensor's L1 norm as mergekit does.
    """
    if how == "none" or density >= 1:
        return delta
    if density <= 0:
        return torch.zeros_like(delta)
    mask = trim_mask(delta, density) if how == "ties" else drop_mask(delta.shape, density, *key).to(delta.device)
    kept = delta * mask
    if rescale == "inverse_density":
        return kept / density
    if rescale == "l1":
        before, after = delta.abs().sum(), kept.abs().sum()
        if before >= _EPSILON and after >= _EPSILON:
            return kept * (before / after)
    return kept


def agree(deltas: Sequence[Tensor], weights: Sequence[float], vote: Vote = "sum", normalize: bool = True) -> Tensor:
    """Return the merged task vector of weighted ``deltas``: per entry the sum of those that agree with the elected sign.

    ``vote`` elects by weighted mass (``sum``) or by head count (``count``); ``none`` holds no vote and sums all of them
    (task arithmetic). Where the vote cancels exactly the elected sign is +. A zero entry neither votes nor counts.
    ``normalize`` divides by the weight of those who agree (the disjoint mean; 1 where that is 0). Raises NotFinite if a
    delta is not finite.
    """
    weighted = [d * w for d, w in zip(deltas, weights, strict=True)]
    total = torch.zeros_like(weighted[0])
    for delta in weighted:
        total += delta
    if not finite(total):
        raise NotFinite("a source holds NaN or infinite values")
    if vote == "none":
        weight = float(sum(weights))
        return total / weight if normalize and abs(weight) >= 1e-8 else total
    if vote == "count":
        ballot = torch.zeros_like(total)
        for delta in weighted:
            ballot += delta.sign()
    else:
        ballot = total
    elected = (ballot >= 0).to(total.dtype) * 2 - 1
    merged = torch.zeros_like(total)
    divisor = torch.zeros_like(total) if normalize else None
    for delta, weight in zip(weighted, weights, strict=True):
        agreeing = delta.sign() == elected
        merged += delta * agreeing
        if divisor is not None:
            divisor += agreeing * weight
    if divisor is not None:
        divisor[divisor == 0] = 1
        merged /= divisor
    return merged
