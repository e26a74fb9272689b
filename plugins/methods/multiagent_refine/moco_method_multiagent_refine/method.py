"""Multi-agent refinement and debate.

Madaan et al., "Self-Refine: Iterative Refinement with Self-Feedback", arXiv 2303.17651; Du et al., "Improving
Factuality and Reasoning in Language Models through Multiagent Debate", arXiv 2305.14325.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Evaluation,
    Example,
    Method,
    Model,
    Needs,
    Pool,
    Question,
    Reply,
    System,
)
from moco_core.converters import floats
from moco_method_multiagent_refine.checking import check_dev, sampled
from moco_method_multiagent_refine.options import WORDS, Options
from moco_toolkit_discussion import Talk, model_problems, refine, summary_scores
from moco_toolkit_quoting import Sheet

__all__ = ["MultiagentRefine", "MultiagentRefineSystem"]


@attrs.frozen(eq=False, slots=False)
class MultiagentRefineSystem(System):
    """The pool as a discussion. ``summarizer`` is who ends it (None: a vote), ``skills`` the dev means, if measured."""

    summarizer: str | None = None
    skills: tuple[float, ...] | None = attrs.field(default=None, converter=attrs.converters.optional(floats))

    def __attrs_post_init__(self) -> None:
        if self.summarizer is not None:
            self.pool.named(self.summarizer, "multiagent_refine.summarizer")

    async def respond(self, question: Question, context: Context) -> Reply:
        return await self.conclude(await self.discuss(question, context))

    async def discuss(self, question: Question, context: Context) -> Talk:
        """Hold rounds 0 to R and return what was said. Raises ModelCallError if no model ever answered."""
        options: Options = self.options
        talk = Talk(
            members=self.pool,
            question=question,
            context=context,
            sampling=options.sampling(context.sampling),
            full_history=options.history == "full",
            seed=options.seed,
        )
        await talk.open()
        for number in range(options.rounds + 1):
            if number:
                await talk.round({i: _sheet(talk, i, number) for i in range(len(self.pool))})
            if talk.settled(options.stop):
                break
        talk.require_answers()
        return talk

    async def conclude(self, talk: Talk) -> Reply:
        """Return a discussion's final answer: the summary, or the vote where there is none or it cannot be read."""
        last_word = None if self.summarizer is None else self.pool.names.index(self.summarizer)
        return await talk.close(last_word, self.skills)


def _sheet(talk: Talk, index: int, number: int) -> Sheet | None:
    """Return what a model reads in a round: its own last answer and all others'."""
    others = [talk.said[j] for j in talk.order(index, number) if talk.said[j]]
    own = talk.said[index] or None
    return refine(talk.question, own, others) if others or own is not None else None


class MultiagentRefine(Method[Options]):
    """All models answer; in every round each reads the others' last answers and rewrites its own; one text ends it."""

    Options = Options
    system = MultiagentRefineSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Multi-agent refinement"
    paper: ClassVar[str] = "arXiv 2303.17651, 2305.14325"

    def needs(self) -> Needs:
        return Needs(check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        talk = models * (options.rounds + 1)
        respond = talk + (options.summarizer != "vote")
        sample = min(dev, options.dev_sample or dev)
        fit = models * dev if self._evaluates(models) else 0
        if options.summarizer == "best_summarizer" and models > 1:
            fit += (talk + models) * sample
        if options.check_dev:
            fit += respond * sample
        return Cost(fit=fit, respond=respond)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MultiagentRefineSystem:
        options = self.options
        evaluation: Evaluation | None = None
        if self._evaluates(len(pool)):
            if not dev:
                what = "check_dev" if options.check_dev else f"summarizer: {options.summarizer}"
                raise ConfigError(
                    f"multiagent_refine.{what} needs dev examples, there are none; raise the dev limit, choose "
                    "summarizer=vote without check_dev, or name a model"
                )
            evaluation = await context.evaluate(pool, dev, options.greedy(context.sampling))
            context.note(dev_scores=dict(zip(evaluation.names, evaluation.means(), strict=True)))
        system = await self._system(pool, dev, evaluation, context)
        if options.check_dev and evaluation is not None:
            await check_dev(system, dev, evaluation, context)
        return system

    def _evaluates(self, models: int) -> bool:
        """Whether dev scores of the models are needed."""
        options = self.options
        return options.check_dev or (options.summarizer in ("best", "best_summarizer") and models > 1)

    async def _system(
        self, pool: Pool, dev: Sequence[Example], evaluation: Evaluation | None, context: Context
    ) -> MultiagentRefineSystem:
        """Return the system with the last word given to whom the options say."""
        options = self.options
        if options.summarizer == "vote":
            return MultiagentRefineSystem(pool, options)
        if options.summarizer not in WORDS:
            named = pool.named(options.summarizer, "multiagent_refine.summarizer")
            return MultiagentRefineSystem(pool, options, named.name)
        if len(pool) == 1 or evaluation is None:
            return MultiagentRefineSystem(pool, options, pool[0].name)
        skills, best = evaluation.means(), evaluation.best()
        if options.summarizer == "best_summarizer":
            system = MultiagentRefineSystem(pool, options, None, skills)
            chosen = [dev[j] for j in sampled(len(dev), options, context)]
            scores = await summary_scores(system.discuss, len(pool), chosen, context)
            context.note(summary_scores=dict(zip(pool.names, scores, strict=True)))
            best = max(range(len(pool)), key=lambda i: (scores[i], skills[i], -i))
        return MultiagentRefineSystem(pool, options, pool[best].name, skills)

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        wanted = self.options.summarizer
        return [] if wanted in WORDS else model_problems(pool, [wanted], "summarizer")
