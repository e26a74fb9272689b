"""Options of slm_mux."""

from __future__ import annotations

import re
from typing import Literal

import attrs

from moco_core import ConfigError, Sampling, option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """How often models answer, how a tie between them ends, and which of them take part."""

    samples: int = option(5, ge=1, help="answers drawn from every model, k", paper="5 (authors' code)")
    temperature: float = option(0.3, ge=0, help="sampling", paper="0.3; 0.7 (IFEval)")
    top_p: float = option(1.0, gt=0, le=1, help="nucleus")
    max_new_tokens: int | None = option(None, ge=1, help="reply budget; none takes the run's", paper="4096")
    tie: Literal["dev", "support", "order", "random"] = option(
        "dev",
        help="equally confident models: best dev accuracy, most support for the answer among all models, pool order, or a draw",
        paper="dev",
    )
    dev_accuracy: Literal["majority", "single", "mean"] = option(
        "majority",
        help="accuracy that ends ties: of a model's most frequent answer, of one sample, or the mean over its samples",
        paper="given by the user",
    )
    select: Literal["none", "union", "mux_accuracy"] = option(
        "none",
        help="which models take part: all; those whose union of right answers, less the penalty, is best on dev; or those with "
        "which this very method is best on dev",
        paper="union",
    )
    size: str = option("2-5", help="how many models are selected: a number or a range", paper="2-5 (authors' code)")
    penalty: float = option(
        0.5, ge=0, help="select=union: weight of questions on which a selected model is surely wrong", paper="0.5"
    )
    robust_level: int = option(
        2, ge=1, help="select=union: right samples that a model needs to know an answer, at most `samples`", paper="2"
    )
    tau: float = option(
        0.9, gt=0, le=1, help="cosine from which on two free-form replies say the same (a model that embeds)", paper="0.90"
    )
    embedder: str | int | None = option(
        None, help="pool model that embeds free-form replies; none takes the first that can"
    )
    seed: int = option(
        0, help="added to the run's seed for random ties; replies are sampled with the run's alone", paper="42"
    )

    def __attrs_post_init__(self) -> None:
        if not re.fullmatch(r"\d+(-\d+)?", self.size) or not 1 <= self.sizes[0] <= self.sizes[1]:
            raise ConfigError(f"size: expected a number or a range such as 2-5, got {self.size!r}")
        if self.select == "union" and self.robust_level > self.samples:
            raise ConfigError(
                f"robust_level: {self.robust_level} right samples are asked for, {self.samples} are drawn (samples)"
            )

    @property
    def sizes(self) -> tuple[int, int]:
        """The least and the largest number of models that are selected."""
        low, _, high = self.size.partition("-")
        return int(low), int(high or low)

    @property
    def uses_dev(self) -> bool:
        """Whether dev samples decide anything among several models."""
        return self.select != "none" or self.tie in ("dev", "support")

    @property
    def dev_samples(self) -> int:
        """How many answers per model a dev question needs."""
        return 1 if self.dev_accuracy == "single" and self.select == "none" else self.samples

    def sampling(self, run: Sampling) -> Sampling:
        """Return the decoding of every answer."""
        return attrs.evolve(
            run,
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens or run.max_new_tokens,
        )
