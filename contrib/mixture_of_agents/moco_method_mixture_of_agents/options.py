"""Options of mixture_of_agents."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import ConfigError, Sampling, option

__all__ = ["WORDS", "Options"]

WORDS = ("auto", "best", "best_aggregator", "first")


@attrs.frozen(kw_only=True)
class Options:
    """How many layers there are, who proposes, and who writes the answer."""

    layers: int = option(
        2, ge=1, help="layers, the aggregator's included; 1 is the aggregator alone", paper="3; 2 (MoA-Lite)"
    )
    proposers: tuple[str | int, ...] = option(
        (), help="models that propose, by name or index; none listed takes all", paper="6 models"
    )
    top: int | None = option(None, ge=1, help="let only so many propose: the best on dev")
    self_moa: bool = option(
        False,
        help="as many samples of the best dev model in place of the proposers (Self-MoA, arXiv 2502.00674)",
        paper="false",
    )
    aggregator: str | int = option(
        "auto",
        help="who writes the answer: best (dev score alone), best_aggregator (dev score of its answers from equal references), "
        "first, or a model's name or index; auto: best_aggregator with a dev split, else first",
        paper="fixed: Qwen1.5-110B-Chat",
    )
    temperature: float = option(0.7, ge=0, help="sampling of proposals", paper="0.7")
    aggregator_temperature: float = option(0.0, ge=0, help="sampling of the answer", paper="0.7")
    top_p: float | None = option(None, gt=0, le=1, help="nucleus; none takes the run's")
    max_new_tokens: int | None = option(None, ge=1, help="reply budget; none takes the run's", paper="2048")
    order: Literal["shuffled", "fixed"] = option(
        "shuffled", help="order of references: drawn for every question, layer and reader, or the pool's", paper="fixed"
    )
    role: Literal["system", "user"] = option(
        "system",
        help="where references stand: in the system message, or in the user's before the question",
        paper="system",
    )
    dev_sample: int | None = option(
        None, ge=1, help="dev examples on which aggregators are compared; none takes all"
    )
    seed: int = option(
        0, help="added to the run's seed for the order of references; replies are sampled with the run's alone"
    )

    def __attrs_post_init__(self) -> None:
        if self.self_moa and (self.top is not None or self.proposers):
            raise ConfigError("self_moa: the best dev model alone proposes; leave proposers and top out")
        if self.top is not None and self.proposers:
            raise ConfigError("top: proposers are listed by name; give one of the two")

    def sampling(self, run: Sampling, *, aggregator: bool = False) -> Sampling:
        """Return the decoding of proposals, or of the aggregator's answer."""
        return attrs.evolve(
            run,
            temperature=self.aggregator_temperature if aggregator else self.temperature,
            top_p=run.top_p if self.top_p is None else self.top_p,
            max_new_tokens=self.max_new_tokens or run.max_new_tokens,
        )
