"""Options of trained_router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from moco_core import ConfigError, Plugin, option, plugin_option

__all__ = ["EMBEDDED", "IN_FORCE", "Kind", "Options"]

Kind = Literal["embedding_mlp", "mf", "sw_ranking", "encoder", "causal_lm"]
IN_FORCE = ("epochs", "batch", "learning_rate", "weight_decay")
"""Options of the training whose defaults depend on the kind of router."""
EMBEDDED = ("embedding_mlp", "mf", "sw_ranking")
"""The kinds that read embeddings; the others are models that the training toolkit trains."""

_EPOCHS: Mapping[str, int] = {"embedding_mlp": 200, "mf": 100, "encoder": 3, "causal_lm": 3}
_BATCH: Mapping[str, int] = {"embedding_mlp": 32, "mf": 64, "encoder": 16, "causal_lm": 16}
_RATE: Mapping[str, float] = {"embedding_mlp": 1e-3, "mf": 3e-4, "encoder": 1e-5, "causal_lm": 1e-4}
_DECAY: Mapping[str, float] = {"embedding_mlp": 1e-2, "mf": 1e-5, "encoder": 0.0, "causal_lm": 0.0}


@attrs.frozen(kw_only=True)
class Options:
    """What kind of router, what it learns from dev, and how its probabilities become a choice."""

    router: Kind = option(
        "embedding_mlp",
        help="an MLP, a matrix factorisation or a similarity-weighted ranking on embeddings; an encoder or a causal "
        "language model that is trained",
        paper="mf, sw_ranking, encoder, causal_lm",
    )
    mode: Literal["nway", "binary"] = option(
        "nway",
        help="choose among all models, or between a weak and a strong one (in this order) by a threshold",
        paper="binary",
    )
    objective: Literal["best", "score"] = option(
        "best", help="learn who is best, or every model's own score (embedding_mlp; for scores in [0, 1])"
    )
    tie: Literal["soft", "cheapest", "reward_model", "drop"] = option(
        "soft",
        help="who is best where several are: all, the cheapest, whose reply the reward model prefers; drop leaves out "
        "questions on which all are equal",
        paper="a label of its own; mf drops ties",
    )
    tie_eps: float = option(0.0, ge=0, help="scores that differ by no more are equal")
    reward_model: Plugin | None = plugin_option("pool", None, help="the reward model's pool, for tie=reward_model")
    cost_weight: float = option(
        0.0,
        ge=0,
        help="lambda: the choice is the largest p - lambda * cost, a cost being a share of the dearest model's",
    )
    prices: tuple[float, ...] | None = option(
        None, ge=0, help="money per million tokens, one per model; none takes the pool's, else parameters, else tokens"
    )
    threshold: float | None = option(
        None, ge=0, help="strong from this probability on (mode=binary); none calibrates it", paper="swept"
    )
    calibrate: Literal["fraction", "score"] = option(
        "fraction",
        help="the threshold that sends strong_fraction of the held-out questions to the strong model, or the one with the "
        "best held-out score that sends no more",
    )
    strong_fraction: float = option(0.5, gt=0, lt=1, help="share of strong calls (mode=binary)", paper="swept")
    val_fraction: float = option(0.2, gt=0, lt=0.5, help="share of dev held out of training", paper="0.05 (mf)")
    folds: int | None = option(
        None,
        ge=0,
        help="cross-fitted routers that dev is judged by; none: 5 on embeddings, 0 (held-out share) for models",
    )
    encoder: str | int = option(
        "auto",
        help="who embeds questions: a member's name or index, pool (all that write), or auto: a member that only embeds, "
        "else pool",
    )
    base: str | int = option(
        "auto", help="who is trained (encoder, causal_lm): a member's name or index; auto: the smallest that can be"
    )
    model_descriptions: tuple[str, ...] | None = option(
        None, help="one per model, shown to causal_lm; none takes the pool's"
    )
    hidden: int = option(64, ge=1, help="width of embedding_mlp")
    patience: int = option(30, ge=1, help="epochs without a better held-out score that end training on embeddings")
    dim: int = option(128, ge=1, help="width of mf", paper="128")
    noise: float = option(0.1, ge=0, help="Gaussian noise on mf's questions while it is trained", paper="0.1")
    epochs: int | None = option(
        None, ge=1, help="none: 200 (embedding_mlp), 100 (mf), 3 (encoder, causal_lm)", paper="100 (mf)"
    )
    batch: int | None = option(None, ge=1, help="none: 32 (embedding_mlp), 64 (mf), 16", paper="64 (mf)")
    learning_rate: float | None = option(
        None, gt=0, help="none: 1e-3 (embedding_mlp), 3e-4 (mf), 1e-5 (encoder), 1e-4 (causal_lm)", paper="3e-4 (mf)"
    )
    weight_decay: float | None = option(None, ge=0, help="none: 1e-2 (embedding_mlp), 1e-5 (mf), 0", paper="1e-5 (mf)")
    lora_r: int = option(16, ge=0, help="rank of causal_lm's adapter; 0 trains all weights")
    lora_alpha: int = option(32, ge=1, help="its scale")
    lora_dropout: float = option(0.05, ge=0, lt=1, help="its dropout")
    rewording: bool = option(True, help="also tell how many dev choices stay under rewording of the question")
    seed: int = option(0, help="added to the run's seed for splits, first weights and order")

    def __attrs_post_init__(self) -> None:
        problems = []
        if self.tie == "reward_model" and self.reward_model is None:
            problems.append("reward_model: missing, tie=reward_model needs its pool: {name: ..., ...}")
        if self.objective == "score" and self.router != "embedding_mlp":
            problems.append(f"objective: score goes with router=embedding_mlp, not {self.router}")
        if self.mode == "binary" and self.cost_weight:
            problems.append("cost_weight: goes with mode=nway; with mode=binary the threshold sets the cost")
        if self.mode == "nway" and self.threshold is not None:
            problems.append("threshold: goes with mode=binary")
        if problems:
            raise ConfigError(problems)

    @property
    def embedded(self) -> bool:
        """Whether the router reads embeddings."""
        return self.router in EMBEDDED

    @property
    def parts(self) -> int:
        """How many cross-fitted routers judge dev."""
        return (5 if self.embedded else 0) if self.folds is None else self.folds

    def in_force(self, name: Literal["epochs", "batch", "learning_rate", "weight_decay"]) -> float:
        """Return a training option, or its default for this kind of router."""
        given = getattr(self, name)
        table = {"epochs": _EPOCHS, "batch": _BATCH, "learning_rate": _RATE, "weight_decay": _DECAY}[name]
        return float(table[self.router] if given is None else given)
