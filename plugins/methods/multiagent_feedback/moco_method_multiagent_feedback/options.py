"""Options of multiagent_feedback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from moco_core import ConfigError, Model, Sampling, option
from moco_toolkit_discussion import model_problems

__all__ = ["WORDS", "Options"]

WORDS = ("best", "best_summarizer")


@attrs.frozen(kw_only=True)
class Options:
    """Who reviews whom, how often, and how it ends: with an answer, or with the decision whether to give one."""

    final: Literal["summarize", "vote", "abstain", "compete"] = option(
        "summarize",
        help="how it ends: one model's summary, a vote; or whether to answer at all, by reviews (abstain: the paper's "
        "Cooperate) or by a challenge (compete)",
        paper="abstain, compete",
    )
    rounds: int = option(1, ge=0, help="rounds of review and revision (summarize, vote)", paper="no revision")
    feedback_count: int = option(3, ge=1, help="reviewers per answer, at most all others", paper="3")
    include_self: bool = option(False, help="authors also review their own answers", paper="true")
    summarizer: str | int = option(
        "best",
        help="who writes the summary, or is area chair of abstain: best (dev score alone), best_summarizer (dev score of its "
        "summaries), or a model's name or index",
        paper="ChatGPT (others), the proposer (self)",
    )
    proposer: str | int = option(
        "best", help="whose answer abstain and compete decide on: best (dev score alone), or a model's name or index"
    )
    threshold: float | None = option(
        None,
        gt=0,
        help="final=abstain: abstain from this probability of being wrong on; none chooses it on dev if the area chair gives "
        "probabilities, and takes 0.5 if it writes its verdicts; 2 never abstains",
    )
    verdict: Literal["auto", "score", "write"] = option(
        "auto", help="final=abstain: the area chair's label is scored, or it writes one; auto: scored where it can be"
    )
    perspectives: tuple[str, ...] = option(
        ("factual", "multi-hop", "commonsense"),
        help="a single model reviews itself from these, after writing down what it knows",
        paper="these three",
    )
    temperature: float = option(0.7, ge=0, help="sampling of answers and revisions", paper="0.1")
    top_p: float = option(0.9, gt=0, le=1, help="nucleus")
    max_new_tokens: int | None = option(None, ge=1, help="answer budget per call; none takes the run's")
    feedback_temperature: float = option(1.0, ge=0, help="sampling of reviews and passages", paper="1.0")
    feedback_max_new_tokens: int = option(200, ge=1, help="length of a review or passage", paper="200")
    dev_sample: int | None = option(
        None, ge=1, help="dev examples for best_summarizer and for counting abstentions; none takes all"
    )
    seed: int = option(
        0, help="added to the run's for reviewers, challengers and orders; replies are sampled with the run's alone"
    )

    def __attrs_post_init__(self) -> None:
        if self.summarizer == "best_summarizer" and self.final != "summarize":
            raise ConfigError(f"summarizer: best_summarizer is for final: summarize; final is {self.final!r}")
        if not self.perspectives:
            raise ConfigError("perspectives: expected at least one, got none")

    @property
    def abstains(self) -> bool:
        """Whether the end is a decision whether to answer."""
        return self.final in ("abstain", "compete")

    def evaluates(self, models: int) -> bool:
        """Whether dev scores of single models are needed."""
        named = {
            "summarize": (self.summarizer,),
            "abstain": (self.summarizer, self.proposer),
            "compete": (self.proposer,),
        }
        return models > 1 and any(name in WORDS for name in named.get(self.final, ()))

    def reviews(self, models: int) -> int:
        """Reviews per answer; a single model gives one per perspective."""
        if models == 1:
            return min(self.feedback_count, len(self.perspectives))
        return min(self.feedback_count, models - 1) + self.include_self

    def sampling(self, run: Sampling) -> Sampling:
        """Return the decoding of answers and revisions."""
        return attrs.evolve(
            run,
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens or run.max_new_tokens,
        )

    def feedback(self, run: Sampling) -> Sampling:
        """Return the decoding of reviews and passages."""
        return attrs.evolve(
            run, temperature=self.feedback_temperature, top_p=1.0, max_new_tokens=self.feedback_max_new_tokens
        )

    def problems(self, pool: Sequence[Model]) -> list[str]:
        """Return what does not fit a pool, one sentence each; for ``Needs.check``."""
        out = []
        for where, name in (("summarizer", self.summarizer), ("proposer", self.proposer)):
            if name not in WORDS or (where, name) == ("proposer", "best_summarizer"):
                out += model_problems(pool, [name], where)
        if self.verdict == "score" and self.final == "abstain" and self.summarizer not in WORDS:
            chair = next((m for i, m in enumerate(pool) if self.summarizer in (m.name, i)), None)
            if chair is not None and not chair.can("score"):
                out.append(f"verdict: the area chair {chair.name!r} cannot score labels; choose verdict=write")
        for model in pool:
            if model.context_length is not None and model.context_length <= self.feedback_max_new_tokens:
                out.append(
                    f"feedback_max_new_tokens: {self.feedback_max_new_tokens} tokens of a review leave nothing of the "
                    f"context of {model.name!r}, {model.context_length} tokens; lower it"
                )
        return out
