"""Where the head defers: thresholds on sigmoid(g.h), and how they are found."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from moco_method_co_llm.options import Options

__all__ = ["candidates", "schedule", "threshold_for_fraction", "youden"]


def threshold_for_fraction(sigma: Tensor, share: float) -> float:
    """Return the threshold above which a share of ``sigma`` lies, exact up to one position."""
    ordered = sigma.sort(descending=True).values
    count = round(share * len(ordered))
    if count == 0:
        return 1.0
    if count == len(ordered):
        return 0.0
    return float((ordered[count - 1] + ordered[count]) / 2)


def youden(sigma: Tensor, differs: Tensor) -> float:
    """Return the threshold with the largest true minus false positive rate for "the assistant's top token differs".

    Equal values are decided together; 1 (never defer) if the label never or always holds. Ties: less deferral.
    """
    positives, negatives = int(differs.sum()), int((~differs).sum())
    if not positives or not negatives:
        return 1.0
    values, place = sigma.unique(return_inverse=True)  # ascending
    above = [torch.bincount(place[kind], minlength=len(values)).flip(0).cumsum(0) for kind in (differs, ~differs)]
    rate = above[0].double() / positives - above[1].double() / negatives  # from the largest value on
    if rate.max() <= 1e-12:
        return 1.0
    best = len(values) - 1 - int((rate >= rate.max() - 1e-12).nonzero()[0])
    below = float(values[best - 1]) if best else max(0.0, float(values[0]) - 2e-6)
    return (float(values[best]) + below) / 2


def candidates(sigma: Tensor, differs: Tensor, options: Options) -> list[float]:
    """Return the thresholds that the calibration chooses from, less deferral first.

    ``sigma`` float32 (T,) are the head's values, ``differs`` bool (T,) tells where the assistant's top token is another one.
    Five digits are kept: the rest depends on which texts were read in one batch.
    """
    if options.calibration == "fraction":
        found = [threshold_for_fraction(sigma, options.target_fraction)]
    elif options.calibration == "youden":
        found = [youden(sigma, differs)]
    else:
        found = [threshold_for_fraction(sigma, i / options.quantiles) for i in range(options.quantiles + 1)]
    return list(dict.fromkeys(float(f"{value:.5g}") for value in found))


def schedule(eta: float, options: Options) -> tuple[float, ...]:
    """Return the threshold of each of the first tokens; the last one holds from there on."""
    n, kind = options.warmup_tokens, options.threshold_warmup
    if kind == "none":
        return (eta,)
    out = []
    for t in range(n):
        x = t / n
        if kind == "linear":
            share = 1 - x
        elif kind == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * x))
        else:
            share = math.exp(-5 * x)
        out.append(eta + (1 - eta) * share)
    return (*out, eta)
