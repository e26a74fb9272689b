"""Options of graph_routing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from moco_core import ConfigError, Question, option

__all__ = ["SCENARIOS", "Options", "task_of"]

SCENARIOS: Mapping[str, tuple[float, float]] = {
    "performance": (1.0, 0.0),
    "balance": (0.5, 0.5),
    "cost": (0.2, 0.8),
}
"""Weights (a, b) of the utility a * effect - b * cost."""


@attrs.frozen(kw_only=True)
class Options:
    """What a good edge is, what the nodes say, and how the network is trained."""

    scenario: Literal["performance", "balance", "cost"] = option(
        "performance", help="weights (a, b) of the utility a * score - b * cost: (1, 0), (0.5, 0.5) or (0.2, 0.8)"
    )
    weights: tuple[float, float] | None = option(
        None, ge=0, help="the weights (a, b) themselves, in place of a scenario"
    )
    tie_eps: float = option(0.0, ge=0, help="utilities that differ by no more are equal")
    prices: tuple[float, ...] | None = option(
        None, ge=0, help="money per million tokens, one per model; none takes the pool's, else parameters, else tokens"
    )
    encoder: str | int = option(
        "auto",
        help="who embeds texts: a member's name or index, pool (all that write), or auto: a member that only embeds, else "
        "pool",
        paper="a BERT-type encoder",
    )
    model_descriptions: tuple[str, ...] | None = option(
        None, help="one per model, in pool order; none takes the pool's, else the names"
    )
    task_descriptions: Mapping[str, str] = option(
        factory=dict, help="text of a task by the name of its subset; the name itself where there is none"
    )
    new_models: tuple[str, ...] = option(
        (), help="models that join by their description alone: they are not asked on dev before they are chosen"
    )
    few_shot: int = option(
        0, ge=0, help="dev questions that new models do answer, as edges of theirs; nothing is retrained"
    )
    hidden_features: int = option(8, ge=4, le=256, help="half the width of a node", paper="8")
    aggregation: Literal["mean", "sum"] = option("mean", help="how a model's messages are reduced", paper="sum")
    learning_rate: float = option(1e-3, gt=0, help="of AdamW", paper="3e-4")
    weight_decay: float = option(1e-4, ge=0, help="of AdamW", paper="1e-4")
    train_epochs: int = option(500, ge=1, help="updates at most", paper="1000")
    patience: int = option(100, ge=1, help="updates without a better held-out utility that end training")
    train_mask_rate: float = option(0.5, gt=0, lt=1, help="share of the training edges visible in a draw", paper="0.5")
    draws_per_step: int = option(32, ge=1, help="draws averaged in an update", paper="32")
    val_fraction: float = option(0.2, gt=0, lt=0.5, help="share of dev questions held out of training", paper="0.1")
    folds: int = option(5, ge=0, help="cross-fitted networks that dev is judged by; 0 judges by the held-out share")
    rewording: bool = option(True, help="also tell how many dev choices stay under rewording of the question")
    seed: int = option(0, help="added to the run's seed for splits, first weights and draws")

    def __attrs_post_init__(self) -> None:
        if self.weights is not None and not any(self.weights):
            raise ConfigError("weights: one of the two must be above 0")

    @property
    def utility(self) -> tuple[float, float]:
        """The weights (a, b) in force."""
        return SCENARIOS[self.scenario] if self.weights is None else self.weights


def task_of(question: Question, options: Options) -> str:
    """Return the text of a question's task: its description, else the name of its subset."""
    return options.task_descriptions.get(question.subset, "") or question.subset or "question"
