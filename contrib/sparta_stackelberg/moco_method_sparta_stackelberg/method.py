"""Sparta with a leader.

Hahn, Feng, Light, Roy, Gonen and Tsvetkov, "Multi-LLM Collaborative Alignment via Stackelberg Games", arXiv 2609.39076.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core import Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, Sampling, System
from moco_method_sparta_stackelberg.fitting import hold
from moco_method_sparta_stackelberg.options import Options
from moco_toolkit_duels import costs, judge_problems, select, split
from moco_toolkit_training import kept, restore_trained, save_trained

__all__ = ["SpartaStackelberg", "SpartaStackelbergSystem"]


@attrs.frozen(eq=False, slots=False)
class SpartaStackelbergSystem(System):
    """The selected model, the round it was taken after, what fitting came to, and the final ratings by name."""

    chosen: Model
    outcome: str
    ratings: Mapping[str, float]
    round: int

    @property
    def model(self) -> Model:
        return self.chosen

    async def respond(self, question: Question, context: Context) -> Reply:
        generation = await context.generate(self.chosen, question)
        return Reply.of(generation, model=self.chosen.name, round=self.round, outcome=self.outcome)

    def state(self) -> Mapping[str, Any]:
        return {
            "chosen": kept(self.chosen),
            "outcome": self.outcome,
            "ratings": dict(self.ratings),
            "round": self.round,
        }

    def save_files(self, folder: Path) -> None:
        save_trained(self.chosen, folder / "model")


class SpartaStackelberg(Method[Options]):
    """A leader commits to instructions; models duel on them, the others judge, and all are trained by DPO or GRPO."""

    Options = Options
    system = SpartaStackelbergSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Sparta with a Stackelberg leader"
    paper: ClassVar[str] = "arXiv 2609.39076"

    def needs(self) -> Needs:
        """A pool of two has nobody to judge."""
        return Needs(
            capabilities=frozenset({"generate", "train"}),
            optional={"score"} if self.options.judging == "expected" else set(),
            min_models=3,
            check=lambda pool: judge_problems(pool, self.options),
        )

    def cost(self, models: int, dev: int) -> Cost:
        return self._cost(models, dev)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        return self._cost(len(pool), dev, pool, sampling)

    def _cost(self, models: int, dev: int, pool: Sequence[Model] = (), sampling: Sampling | None = None) -> Cost:
        """With GRPO, judgements within training count too, and every reply of a group is read once."""
        options, duels = self.options, self.options.num_duels_per_iteration if dev > 1 else 0
        own = costs(options, models, dev, options.num_iterations, duels, pool, sampling)
        if options.training_algorithm == "dpo":
            return own
        replies = 2 * duels * options.group * options.num_iterations
        judged = replies * max(0, models - 2) * options.rounds
        selecting = own.fit - options.num_iterations * duels * (2 + 2 * max(0, models - 2) * options.rounds)
        fit = selecting + replies + judged * (1 + options.epochs)
        return attrs.evolve(own, fit=fit, train_tokens=own.train_tokens / max(1, models) * options.group)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SpartaStackelbergSystem:
        options = self.options
        examples, held = split("sparta_stackelberg", dev, options, context)
        rounds = await hold(pool, examples, options, context)
        selection = await select(rounds.models, held, context)
        best = selection.best
        context.note(
            outcome=rounds.outcome, chosen=best.model.name, round=best.iteration, held_out_score=selection.score
        )
        if rounds.outcome in ("no_pairs", "nothing_trained"):
            context.warn(
                f"sparta_stackelberg: outcome {rounds.outcome}: no model was trained; {best.model.name} answers as it came"
            )
        ratings = dict(zip(pool.names, rounds.standings.ratings, strict=True))
        return SpartaStackelbergSystem(pool, options, best.model, rounds.outcome, ratings, best.iteration)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> SpartaStackelbergSystem:
        chosen = restore_trained(pool, state["chosen"], folder / "model")
        assert chosen is not None  # a chosen model is always kept
        return SpartaStackelbergSystem(pool, self.options, chosen, state["outcome"], state["ratings"], state["round"])
