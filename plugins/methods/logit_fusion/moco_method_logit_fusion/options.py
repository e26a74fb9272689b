"""The options of logit fusion."""

from __future__ import annotations

import math
from typing import Any, Literal

import attrs

from moco_core import ConfigError, option

__all__ = ["Options"]

Weights = Literal["uniform", "dev", "search", "nll"] | tuple[float, ...]


def _usable_weights(value: Any) -> str | None:
    if isinstance(value, str):
        return None
    if not all(math.isfinite(w) and w >= 0 for w in value):
        return f"expected finite numbers >= 0, got {list(value)}"
    return None if sum(value) > 0 else "expected at least one weight above 0"


@attrs.frozen(kw_only=True)
class Options:
    """How the members' scores are combined, and how their weights are found."""

    combine: Literal["prob", "logprob", "logit", "max"] = option(
        "logprob",
        help="prob: mean of probabilities; logprob and logit: mean of log-probabilities; max: largest probability",
        paper="prob (UniTE, GaC)",
    )
    weights: Weights = option(
        "uniform",
        check=_usable_weights,
        help="uniform; a list, one per model; dev: softmax of dev scores; search: best dev score of the fused model; nll: "
        "likelihood of the dev references",
    )
    normalise: bool = option(True, help="scale listed weights to sum 1; false only with combine=logit or logprob")
    tau_w: float = option(0.05, gt=0, help="temperature of weights=dev; near 0 it selects the best model")
    member_temperature: float | tuple[float, ...] = option(
        1.0, gt=0, help="divides each model's logits before combining; one number or one per model"
    )
    plausibility: float = option(
        0.0,
        ge=0,
        lt=1,
        help="keep tokens with at least this share of the largest probability of any model",
        paper="0.1 (CD)",
    )
    alignment: Literal["auto", "same", "unite"] = option(
        "auto", help="same: fuse over token ids; unite: over the union of top strings; auto: unite if tokenizers differ"
    )
    union_top_k: int = option(10, ge=1, help="strings per model in the union (alignment=unite)", paper="10")
    search_budget: int = option(24, ge=1, help="random weightings tried by weights=search with more than two models")

    def __attrs_post_init__(self) -> None:
        if not self.normalise and (isinstance(self.weights, str) or self.combine not in ("logit", "logprob")):
            raise ConfigError("normalise: false needs a list of weights and combine=logit or logprob")
        if self.weights == "nll" and self.alignment == "unite":
            raise ConfigError(
                "weights: nll needs one tokenizer, since it compares models token by token; use search or dev"
            )

    def temperatures(self, members: int) -> tuple[float, ...]:
        """Return one temperature per member; empty if all are 1."""
        given = self.member_temperature
        values = given if isinstance(given, tuple) else (given,) * members
        return () if all(t == 1 for t in values) else values
