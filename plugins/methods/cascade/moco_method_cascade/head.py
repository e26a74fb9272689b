"""The post-hoc deferral head: would the next level do better, told from quantiles of token log-probabilities?

Gupta et al., "Language Model Cascades: Token-level uncertainty and beyond", arXiv 2404.10136, section on post-hoc deferral.
They train a small network; a logistic regression on the same features is what a dev split of this size can carry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from moco_core import ConfigError
from moco_method_cascade.quantiles import chow_average, chow_quantile

__all__ = ["Head", "features", "fit_head"]

LEVELS = tuple(k / 10 for k in range(11))
FOLDS = 5
_DIGITS = 6  # kept of every number of a head, so that rounding of a solver never reaches a threshold


def features(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Return the deciles of {log p_t}, their mean, and log(1 + T)."""
    return (*(chow_quantile(logprobs, q) for q in LEVELS), chow_average(logprobs), math.log1p(len(logprobs)))


@attrs.frozen(kw_only=True)
class Head:
    """A logistic regression: ``confidence`` is the probability that the next level scores no better than this reply."""

    weights: tuple[float, ...]
    bias: float

    def confidence(self, logprobs: Sequence[float]) -> float:
        """Return the confidence in a reply; NaN without log-probabilities."""
        if not logprobs or not all(map(math.isfinite, logprobs)):
            return math.nan
        logit = self.bias + math.fsum(w * x for w, x in zip(self.weights, features(logprobs), strict=True))
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def fit_head(rows: Sequence[Sequence[float] | None], keeps: Sequence[bool]) -> tuple[Head | None, list[float]]:
    """Fit a head on replies' log-probabilities (None: no reply) and whether the next level did no better.

    Return it with the confidence of every row, from a head that has not seen the row (cross-fitted over five folds), so that
    thresholds are not set on what the head was trained on. None, and NaN for all, where the next level always helps or never
    does: there is nothing to tell apart. Raises ConfigError if scikit-learn is missing.
    """
    usable = [j for j, row in enumerate(rows) if row and all(map(math.isfinite, row))]
    out = [math.nan] * len(rows)
    given, wanted = [features(rows[j] or ()) for j in usable], [bool(keeps[j]) for j in usable]
    if min(sum(wanted), len(wanted) - sum(wanted)) < 2:
        return None, out
    for fold in range(FOLDS):
        inside = [k for k in range(len(usable)) if k % FOLDS != fold]
        head = _solve([given[k] for k in inside], [wanted[k] for k in inside])
        for k in range(fold, len(usable), FOLDS):
            out[usable[k]] = math.nan if head is None else head.confidence(rows[usable[k]] or ())
    return _solve(given, wanted), out


def _solve(rows: Sequence[Sequence[float]], wanted: Sequence[bool]) -> Head | None:
    """Return the regularised regression on standardised features, written for the features as they are."""
    if len(set(wanted)) < 2:
        return None
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ConfigError(
            "cascade.confidence: deferral needs scikit-learn; pip install 'moco-method-cascade[deferral]', or choose "
            "chow_quantile"
        ) from error
    scaler: Any = StandardScaler().fit(rows)
    model: Any = LogisticRegression(max_iter=1000).fit(scaler.transform(rows), list(wanted))
    weights = [float(w) / float(s) for w, s in zip(model.coef_[0], scaler.scale_, strict=True)]
    bias = float(model.intercept_[0]) - math.fsum(w * float(m) for w, m in zip(weights, scaler.mean_, strict=True))
    return Head(weights=tuple(round(w, _DIGITS) for w in weights), bias=round(bias, _DIGITS))
