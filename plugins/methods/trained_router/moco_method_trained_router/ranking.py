"""Bradley-Terry ratings from weighted battles between models."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["battles", "ratings", "weights"]

Array = Any
_STEPS = 60
_DONE = 1e-12  # of the largest gradient, as a share of all weight


def weights(vectors: Array, query: Array) -> Array:
    """Return omega_b = 10 * 10^(cos(e_q, e_b) / max_b' cos(e_q, e_b')) per dev question (n,).

    Where no dev question points the question's way (the largest cosine is not above 0) all weigh the same.
    """
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    cosines = (vectors @ query) / np.where(lengths > 0, lengths, 1.0)
    top = cosines.max(initial=0.0)
    shares = cosines / top if top > 0 else np.ones(len(vectors))
    return 10.0 * 10.0**shares


def battles(scores: Array, omega: Array, tie: float = 0.0) -> Array:
    """Return W (N, N): the weight with which model i beat model j. A battle counts twice, a tie once for each side."""
    ahead = (scores[:, :, None] > scores[:, None, :] + tie).astype(float)
    even = 1.0 - ahead - ahead.transpose(0, 2, 1)
    even[:, range(scores.shape[1]), range(scores.shape[1])] = 0.0
    return np.einsum("q,qij->ij", omega, 2.0 * ahead + even)


def ratings(won: Array) -> Array:
    """Return the ratings (N,) that make the battles ``won`` (N, N) most likely, 400 points per factor of ten, summing to 0.

    It is the logistic regression without intercept and penalty on features of +-ln 10, solved by Newton's method with halved
    steps. Where one model wins everything the likelihood has no maximum: ratings are then as far apart as the gradient told.
    """
    models, total = len(won), max(won.sum(), 1e-300)
    theta = np.zeros(models)  # natural log-odds
    value = _likelihood(theta, won)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))  # P(i beats j)
        gradient = (won * (1 - p)).sum(1) - (won * (1 - p)).sum(0)
        if np.abs(gradient).max() < _DONE * total:
            break
        both = (won + won.T) * p * (1 - p)
        step = np.linalg.lstsq(np.diag(both.sum(1)) - both, gradient, rcond=1e-13)[0]
        size = 1.0
        while (found := _likelihood(theta + size * step, won)) < value and size > 1e-6:
            size /= 2
        if found <= value:
            break
        theta, value = theta + size * step, found
    return (theta - theta.mean()) * 400 / np.log(10)


def _likelihood(theta: Array, won: Array) -> float:
    return -float((won * np.logaddexp(0.0, theta[None, :] - theta[:, None])).sum())
