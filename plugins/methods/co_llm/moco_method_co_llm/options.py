"""The options of Co-LLM."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from moco_core import option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """How the deferral head is trained, and when it defers."""

    deferral_threshold: float | None = option(
        None, ge=0, le=1, help="defer if sigmoid(g.h) is above this; none: calibrated on held-out dev", paper="tuned"
    )
    calibration: Literal["score", "fraction", "youden"] = option(
        "score",
        help="how the threshold is found: best dev score over quantiles, a target share of deferrals, or the ROC optimum",
        paper="fraction, youden (code)",
    )
    target_fraction: float = option(0.2, ge=0, le=1, help="share of tokens to defer (calibration=fraction)")
    quantiles: int = option(10, ge=2, help="thresholds tried by calibration=score")
    held_out: float = option(0.25, gt=0, lt=1, help="share of dev kept for calibration")
    targets: Literal["auto", "gold", "assistant", "either"] = option(
        "auto",
        help="texts to learn from: references, replies of the assistant or of either model that the metric accepts, or (auto) "
        "the assistant's if any, else references",
        paper="gold",
    )
    train: Literal["head", "lora", "full"] = option(
        "head",
        help="what is trained: the head alone, or the base model with it (needs the training toolkit)",
        paper="full",
    )
    base_learning_rate: float | None = option(
        None,
        gt=0,
        help="of base and head together (train=lora, full); none: 1e-4, or 2e-5 for all weights",
        paper="2e-5",
    )
    base_epochs: int = option(2, ge=1, help="passes over the texts (train=lora, full)", paper="2")
    base_batch: int = option(
        128, ge=1, help="texts per update; fewer where there are few (train=lora, full)", paper="128"
    )
    lora_r: int = option(16, ge=1, help="rank of the base model's adapter (train=lora)")
    lora_alpha: int = option(32, ge=1, help="its scale")
    init: Literal["a", "b", "none"] = option(
        "a", help="weak labels: a: only the assistant is right; b: the base is wrong; none: joint loss alone", paper="a"
    )
    init_pos_weight: float = option(8.0, gt=0, help="weight of deferral labels", paper="8")
    learning_rate: float = option(1e-2, gt=0, help="of the head", paper="2e-5 (head and base together)")
    epochs: int = option(
        60, ge=1, help="passes over the cached positions, for labels and joint loss each", paper="1, 2"
    )
    batch: int = option(128, ge=1, help="positions per step", paper="128 sequences")
    warmup_ratio: float = option(
        0.04, ge=0, le=1, help="share of the steps over which the learning rate rises", paper="0.04"
    )
    max_seq_length: int = option(
        2048, ge=8, help="longest prompt plus target in tokens; others are left out", paper="2048"
    )
    strategy: Literal["defer", "compose"] = option(
        "defer", help="defer: one model writes the token; compose: argmax of the mixture of both", paper="defer"
    )
    draft_len: int = option(16, ge=1, help="base tokens per call; changes the speed, never the answer", paper="10")
    threshold_warmup: Literal["none", "linear", "cosine", "exponential"] = option(
        "none", help="let the threshold fall from 1 to its value over the first tokens", paper="none"
    )
    warmup_tokens: int = option(15, ge=1, help="tokens over which it falls", paper="15")
    base: str | int = option(0, help="base model, by name or index")
    assistant: str | int = option(1, help="assistant model, by name or index")

    def training(self) -> dict[str, Any]:
        """Return what decides the head and its thresholds beside models and texts, as JSON data."""
        names = ("init", "init_pos_weight", "learning_rate", "epochs", "batch", "warmup_ratio", "max_seq_length")
        calibration = {"score": self.quantiles, "fraction": self.target_fraction, "youden": None}[self.calibration]
        return {**{name: getattr(self, name) for name in names}, "calibration": [self.calibration, calibration]}
