"""Options of multiagent_finetuning."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import Sampling, option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """How agents debate, what each is trained on, and how."""

    iterations: int = option(
        1, ge=0, help="rounds of debating all of dev and training; 0 only debates", paper="1; up to 5"
    )
    rounds: int = option(2, ge=1, help="rounds of a debate, the first answers included; 1 only votes", paper="2")
    num_agents: int | None = option(
        None, ge=1, help="agents, who take the pool's models in turn; none: one per model", paper="3"
    )
    w: float = option(
        0.5, ge=0, le=1, help="share of corrected dialogues among those that critics are trained on", paper="0.5"
    )
    summarize: bool = option(True, help="critics read a summary of the others' replies, not the replies", paper="true")
    summarizer: str | int | None = option(
        None, help="who summarises: a model of the pool; none: each agent's model, as it was before any training"
    )
    agents: Literal["separate", "shared"] = option(
        "separate",
        help="every agent has models of its own; or, for comparison, one generator and one critic are trained on "
        "everybody's dialogues and all agents use them",
        paper="separate",
    )
    train_size: int | None = option(
        None, ge=1, help="dev questions that are debated, drawn; none takes all", paper="500"
    )
    min_examples: int = option(2, ge=1, help="a model with fewer examples stays as it is")
    temperature: float = option(1.0, ge=0, help="sampling of debates", paper="1.0")
    top_p: float = option(0.9, gt=0, le=1, help="their nucleus", paper="0.9")
    max_new_tokens: int | None = option(None, ge=1, help="reply budget; none takes the run's")
    learning_rate: float | None = option(
        None, gt=0, help="none: 1e-4 for adapters, 1e-5 for all weights", paper="1e-5 (all weights)"
    )
    epochs: float = option(2, gt=0, help="passes over an iteration's examples", paper="2")
    batch: int = option(16, ge=1, help="examples per update; halved until an epoch has ten updates")
    warmup: float = option(0.03, ge=0, le=1, help="share of updates in which the rate rises", paper="0.03")
    max_length: int = option(2048, ge=2, help="tokens of a dialogue in training", paper="2048")
    lora_r: int = option(16, ge=0, help="rank of new adapters; 0 trains all weights", paper="0")
    lora_alpha: int = option(32, ge=1, help="their scale")
    lora_dropout: float = option(0.05, ge=0, lt=1, help="their dropout")
    diversity: Literal["answers", "full"] = option(
        "answers",
        help="what is told of the agents' diversity in every iteration: agreement and overlap of words; full also embeds "
        "first replies and scores each under the other generators, and measures once more at the end",
        paper="full",
    )
    seed: int = option(
        0, help="added to the run's seed for draws of questions and dialogues, order of quotes and training"
    )

    def sampling(self, run: Sampling) -> Sampling:
        """Return the decoding of debates."""
        budget = self.max_new_tokens or run.max_new_tokens
        return attrs.evolve(run, temperature=self.temperature, top_p=self.top_p, max_new_tokens=budget)
