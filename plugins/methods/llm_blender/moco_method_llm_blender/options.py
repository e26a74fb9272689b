"""Options of llm_blender."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import attrs

from moco_core import ConfigError, Model, Plugin, Sampling, option, plugin_option
from moco_method_llm_blender.pairrm import pairrm

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """Who compares replies and how, what becomes of the comparisons, who fuses, and what is trained."""

    ranker: Literal["judge", "pair_head", "reward_model", "pairrm"] = option(
        "judge",
        help="who compares: a judge that names one of two, a head on both that is trained on dev, a reward model, or a "
        "PairRM that was published",
        paper="pair_head",
    )
    judge: str | int = option(
        "best",
        help="the member that judges or is trained to: best (dev score), a name or an index",
        paper="DeBERTa-v3-large",
    )
    reward_model: Plugin | None = plugin_option("pool", None, help="the reward model's pool, for ranker=reward_model")
    pairrm: str = option(
        "", holds="path or id", help="the PairRM, for ranker=pairrm: folder or Hub id, as llm-blender/PairRM-hf"
    )
    verdict: Literal["auto", "logprobs", "text"] = option(
        "auto", help="read a judge by the scores of its labels or by what it writes; auto: scores where it has them"
    )
    judge_max_new_tokens: int = option(8, ge=1, help="budget of a written verdict")
    aggregation: Literal["max_logits", "max_wins", "bubble"] = option(
        "max_logits",
        help="sums of preferences, wins, or one pass that keeps the winner",
        paper="max_logits; bubble for speed",
    )
    orders: int = option(
        2, ge=1, le=2, help="orders in which each pair is compared; 1 keeps position bias, for ablation", paper="2"
    )
    source_tokens: int = option(
        1224, ge=16, help="tokens of the question that a ranker reads", paper="128 (PairRM: 1224)"
    )
    candidate_tokens: int = option(
        412, ge=16, help="tokens of each reply that a ranker reads", paper="128 (PairRM: 412)"
    )
    fuse: bool = option(True, help="fuse the best replies; else return the best one")
    top_k: int = option(3, ge=1, help="replies that are fused", paper="3")
    fuser: str | int = option("best", help="who fuses: best (dev score), a name or an index", paper="Flan-T5-XL")
    verify: bool = option(False, help="return the fused reply only if it does not lose to the best one")
    dev_sample: int = option(16, ge=0, help="dev questions that are ranked to tell position bias and quality; 0: none")
    train_ranker: bool = option(False, help="train the judge on dev (pair_head always is)", paper="true")
    train_fuser: bool = option(False, help="train the fuser on dev", paper="true")
    val_fraction: float = option(0.2, gt=0, lt=0.9, help="share of dev questions held out of training")
    pairs_per_question: int = option(5, ge=1, help="pairs of a dev question that are trained on", paper="5")
    eps: float = option(0.0, ge=0, help="pairs whose scores differ by no more are left out", paper="0")
    ranker_epochs: int = option(5, ge=1, help="epochs of the ranker; the best by held-out pairs is kept", paper="5")
    ranker_learning_rate: float = option(1e-5, gt=0, help="learning rate of the ranker", paper="1e-5")
    fuser_epochs: int = option(15, ge=1, help="epochs of the fuser; the best by held-out loss is kept", paper="15")
    fuser_learning_rate: float = option(5e-5, gt=0, help="learning rate of the fuser", paper="5e-5")
    batch: int = option(16, ge=1, help="rows per update")
    lora_r: int = option(16, ge=0, help="rank of the adapters; 0 trains all weights", paper="0")
    lora_alpha: int = option(32, ge=1, help="their scale")
    lora_dropout: float = option(0.05, ge=0, lt=1, help="their dropout")
    seed: int = option(0, help="added to the run's seed for splits, pairs, the bubble's order and training")

    def __attrs_post_init__(self) -> None:
        problems = []
        if self.ranker == "reward_model" and self.reward_model is None:
            problems.append("reward_model: missing, ranker=reward_model needs its pool: {name: ..., ...}")
        if self.ranker == "pairrm" and not self.pairrm:
            problems.append("pairrm: missing, ranker=pairrm needs the folder or Hub id of its checkpoint")
        if self.ranker in ("reward_model", "pairrm") and self.train_ranker:
            problems.append("train_ranker: goes with ranker=judge or pair_head")
        if problems:
            raise ConfigError(problems)

    @cached_property
    def pair_ranker(self) -> Model:
        """The published ranker, one engine for all who use these options. Raises ConfigError."""
        return pairrm(self.pairrm, self.source_tokens, self.candidate_tokens)

    @property
    def trains_ranker(self) -> bool:
        return self.train_ranker or self.ranker == "pair_head"

    @property
    def k(self) -> int:
        """How many replies are fused; 1 where nothing is fused. Bubble knows only a winner."""
        return self.top_k if self.fuse and self.aggregation != "bubble" else 1

    def comparisons(self, replies: int) -> int:
        """Return the calls that ranking takes."""
        if self.ranker == "reward_model":
            return replies if replies > 1 else 0
        if self.aggregation == "bubble":
            return self.orders * (replies - 1)
        return self.orders * replies * (replies - 1) // 2

    def greedy(self, run: Sampling) -> Sampling:
        """Return the decoding of the fused reply."""
        return attrs.evolve(run, temperature=0.0)
