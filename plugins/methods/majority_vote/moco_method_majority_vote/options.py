"""Options of majority_vote."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import ConfigError, Sampling, option

__all__ = ["Options"]

TEMPERATURE = 0.7


@attrs.frozen(kw_only=True)
class Options:
    """How replies are drawn, compared, weighted and chosen."""

    samples: int = option(
        1, ge=1, help="replies per model", paper="40 paths (self-consistency); 1 to 40 (Agent Forest)"
    )
    temperature: float | None = option(
        None,
        ge=0,
        help=f"sampling temperature; none takes the run's for one sample, {TEMPERATURE} for more",
        paper="0.5-0.7; 1.0 (Agent Forest)",
    )
    top_p: float | None = option(
        None, gt=0, le=1, help="nucleus; none takes the run's for one sample, 1 for more", paper="1.0 (Agent Forest)"
    )
    top_k: int | None = option(
        None, ge=0, help="most likely tokens sampled from, 0 for all; none takes the run's", paper="40 (self-consistency)"
    )
    max_new_tokens: int | None = option(None, ge=1, help="reply budget; none takes the run's")
    similarity: Literal["metric", "exact", "token_f1", "bleu", "embedding"] = option(
        "metric",
        help="utility u of two answers; metric: the run metric's own, and bleu where whole replies are the answer",
        paper="exact; pairwise equivalence (math); BLEU (code)",
    )
    embedder: str | int | None = option(
        None, help="pool model that embeds for similarity=embedding; none takes the first that can"
    )
    tie: Literal["auto", "best_model", "order", "random"] = option(
        "auto", help="who wins a tie; auto: best_model with a dev split, else order", paper="first most frequent"
    )
    weights: Literal["equal", "dev", "log_odds", "probability"] = option(
        "equal",
        help="voter weights: equal, dev score, log-odds of the dev accuracy, or the reply's mean token probability",
        paper="equal; probability tried too (self-consistency)",
    )
    open_answers: int = option(
        10, ge=2, help="answers taken to be possible where a question has no closed set (weights=log_odds)"
    )
    reply: Literal["best_model", "shortest"] = option(
        "best_model", help="which reply of the winner's supporters is returned"
    )
    seed: int = option(0, help="added to the run's seed for random ties; replies are sampled with the run's alone")

    def __attrs_post_init__(self) -> None:
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError("temperature: expected number > 0 with samples > 1, or all samples are equal; got 0")

    def sampling(self, run: Sampling) -> Sampling:
        """Return the decoding of every reply.

        One reply per model is the very one the model gives alone, so that baselines and other methods share it.
        """
        alone = self.samples == 1
        temperature = run.temperature if alone else TEMPERATURE
        top_p = run.top_p if alone else 1.0
        return attrs.evolve(
            run,
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=top_p if self.top_p is None else self.top_p,
            top_k=run.top_k if self.top_k is None else self.top_k,
            max_new_tokens=self.max_new_tokens or run.max_new_tokens,
        )
