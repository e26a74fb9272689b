"""Sparta alignment.

Jiang, Ding, Feng, Durrett and Tsvetkov, "Sparta Alignment: Collectively Aligning Multiple Language Models through Combat",
arXiv 2506.04721 (NeurIPS 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core import Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, Sampling, System
from moco_method_sparta.fitting import hold
from moco_method_sparta.options import Options
from moco_toolkit_duels import costs, judge_problems, select, split
from moco_toolkit_training import kept, restore_trained, save_trained

__all__ = ["Sparta", "SpartaSystem"]


@attrs.frozen(eq=False, slots=False)
class SpartaSystem(System):
    """The selected model, or a system over the aligned pool.

    ``outcome`` says what fitting came to (``trained``, ``no_pairs``, ``nothing_trained``, ``no_rounds``); ``ratings`` are the
    final ones by name; ``rounds`` tells after how many rounds every chosen checkpoint was taken.
    """

    chosen: tuple[Model, ...]
    outcome: str
    ratings: Mapping[str, float]
    rounds: tuple[int, ...]
    inner: System | None = None

    @property
    def model(self) -> Model | None:
        return self.chosen[0] if self.inner is None else self.inner.model

    async def respond(self, question: Question, context: Context) -> Reply:
        if self.inner is not None:
            reply = await self.inner.respond(question, context)
            return attrs.evolve(reply, meta={**reply.meta, "sparta": self.outcome})
        (model,) = self.chosen
        generation = await context.generate(model, question)
        return Reply.of(generation, model=model.name, round=self.rounds[0], outcome=self.outcome)

    def state(self) -> Mapping[str, Any]:
        return {
            "chosen": [kept(model) for model in self.chosen],
            "outcome": self.outcome,
            "ratings": dict(self.ratings),
            "rounds": list(self.rounds),
            "inner": None if self.inner is None else self.inner.state(),
        }

    def save_files(self, folder: Path) -> None:
        for number, model in enumerate(self.chosen):
            save_trained(model, folder / f"model{number}")
        if self.inner is not None:
            (folder / "inner").mkdir()
            self.inner.save_files(folder / "inner")


class Sparta(Method[Options]):
    """Models duel on instructions, the others judge, weighed by reputation; all are trained on the pairs, and again."""

    Options = Options
    system = SpartaSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Sparta alignment"
    paper: ClassVar[str] = "arXiv 2506.04721"

    @property
    def inner(self) -> Method[Any] | None:
        """The method over the aligned pool, if there is one."""
        return None if self.options.method is None else self.options.method.instance

    def needs(self) -> Needs:
        """A pool of two has nobody to judge."""
        needs = Needs() if self.inner is None else self.inner.needs()
        judging = {"score"} if self.options.judging == "expected" else set()
        return attrs.evolve(
            needs,
            capabilities=needs.capabilities | {"generate", "train"},
            optional=needs.optional | judging,
            min_models=max(3, needs.min_models),
            check=lambda pool: [*(needs.check(pool) if needs.check else ()), *judge_problems(pool, self.options)],
        )

    def cost(self, models: int, dev: int) -> Cost:
        inner = Cost() if self.inner is None else self.inner.cost(models, dev)
        return self._cost(models, dev, inner)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        inner = Cost() if self.inner is None else self.inner.cost_on(pool, dev, sampling)
        return self._cost(len(pool), dev, inner, pool, sampling)

    def _cost(
        self, models: int, dev: int, inner: Cost, pool: Sequence[Model] = (), sampling: Sampling | None = None
    ) -> Cost:
        options = self.options
        held = min(max(1, round(options.holdout * dev)), max(0, dev - 1))
        duels = min(options.num_instructions, dev - held)
        own = costs(options, models, dev, options.num_iterations, duels, pool, sampling)
        started = models * (dev - held) if options.start == "scores" else 0
        return attrs.evolve(
            own,
            fit=own.fit + started + inner.fit,
            respond=inner.respond,
            train_tokens=own.train_tokens + inner.train_tokens,
            train_memory=max(own.train_memory, inner.train_memory),
        )

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SpartaSystem:
        options = self.options
        examples, held = split("sparta", dev, options, context)
        rounds = await hold(pool, examples, options, context)
        selection = await select(rounds.models, held, context)
        chosen = [selection.best] if self.inner is None else list(selection.own)
        context.note(
            outcome=rounds.outcome,
            chosen=[c.model.name for c in chosen],
            rounds=[c.iteration for c in chosen],
            held_out_score=selection.score,
        )
        if rounds.outcome in ("no_pairs", "nothing_trained"):
            context.warn(
                f"sparta: outcome {rounds.outcome}: no model was trained; {chosen[0].model.name} answers as it came"
                if self.inner is None
                else f"sparta: outcome {rounds.outcome}: no model was trained; the pool is as it came"
            )
        inner: System | None = None
        if self.inner is not None:
            inner = await self.inner.fit(Pool(c.model for c in chosen), dev, context)
        return SpartaSystem(
            pool,
            options,
            tuple(c.model for c in chosen),
            rounds.outcome,
            dict(zip(pool.names, rounds.standings.ratings, strict=True)),
            tuple(c.iteration for c in chosen),
            inner,
        )

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> SpartaSystem:
        models = [restore_trained(pool, saved, folder / f"model{n}") for n, saved in enumerate(state["chosen"])]
        chosen = tuple(model for model in models if model is not None)
        inner: System | None = None
        if self.inner is not None:
            inner = self.inner.restore(Pool(chosen), state["inner"], folder / "inner")
        return SpartaSystem(
            pool, self.options, chosen, state["outcome"], state["ratings"], tuple(state["rounds"]), inner
        )
