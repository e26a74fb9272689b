"""Options of multiagent_refine."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import Sampling, option

__all__ = ["WORDS", "Options"]

WORDS = ("best", "best_summarizer", "vote")


@attrs.frozen(kw_only=True)
class Options:
    """How long the models discuss, what they remember, and who has the last word."""

    rounds: int = option(
        2,
        ge=0,
        help="refinement rounds after the first answer",
        paper="debate 1 (GSM8K) or 2 (arithmetic); Self-Refine <= 4",
    )
    summarizer: str | int = option(
        "best",
        help="who ends it: best (stand-alone dev score), best_summarizer (dev score of its summaries), vote, "
        "or a model's name or index",
        paper="vote (debate)",
    )
    history: Literal["last", "full"] = option(
        "last", help="what an agent remembers: the last round, or its whole own chat", paper="full (debate)"
    )
    stop: Literal["never", "consensus", "fixed_point"] = option(
        "never", help="early exit: all answers equal, or no answer changed", paper="never (debate)"
    )
    temperature: float = option(
        0.7,
        ge=0,
        help="sampling of all calls except dev selection and summary, which are greedy",
        paper="0.7 (Self-Refine)",
    )
    top_p: float = option(0.9, gt=0, le=1, help="nucleus")
    max_new_tokens: int | None = option(None, ge=1, help="reply budget per call; none takes the run's")
    dev_sample: int | None = option(
        None, ge=1, help="dev examples discussed, for best_summarizer and check_dev; none takes all"
    )
    check_dev: bool = option(
        False, help="discuss dev too: tell what rounds repair and break, and warn if the best single model is better"
    )
    seed: int = option(
        0, help="added to the run's seed for the order of quotes; replies are sampled with the run's alone"
    )

    def sampling(self, run: Sampling) -> Sampling:
        """Return the decoding of the discussion's replies."""
        return attrs.evolve(
            run,
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens or run.max_new_tokens,
        )

    def greedy(self, run: Sampling) -> Sampling:
        """Return the decoding of what is asked on dev to compare models."""
        return attrs.evolve(self.sampling(run), temperature=0.0)
