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
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    System,
)
from moco_method_multiagent_refine.checking import check_dev, sampled
from moco_method_multiagent_refine.discussion import Discussion
from moco_method_multiagent_refine.options import WORDS, Options
from moco_toolkit_voting import ballots, metric_utility, vote

__all__ = ["MultiagentRefine", "MultiagentRefineSystem"]


def _skills(saved: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if saved is None else tuple(saved)


@attrs.frozen(eq=False, slots=False)
class MultiagentRefineSystem(System):
    """The pool as a discussion. ``summarizer`` is who ends it (None: a vote), ``skills`` the dev means, if measured."""

    summarizer: str | None = None
    skills: tuple[float, ...] | None = attrs.field(default=None, converter=_skills)

    def __attrs_post_init__(self) -> None:
        if self.summarizer is not None:
            self.pool.named(self.summarizer, "multiagent_refine.summarizer")

    async def respond(self, question: Question, context: Context) -> Reply:
        return await self.conclude(await self.discuss(question, context))

    async def discuss(self, question: Question, context: Context) -> Discussion:
        """Hold rounds 0 to R and return what was said. Raises ModelCallError if no model ever answered."""
        options: Options = self.options
        talk = Discussion(
            pool=self.pool,
            question=question,
            context=context,
            sampling=options.sampling(context.sampling),
            full_history=options.history == "full",
            seed=options.seed,
        )
        await talk.open()
        for number in range(options.rounds + 1):
            if number:
                await talk.refine(number)
            if talk.settled(options.stop):
                break
        if all(reply is None for reply in talk.last):
            raise talk.failure or ModelCallError("every model's reply was empty")
        return talk

    async def conclude(self, talk: Discussion) -> Reply:
        """Return a discussion's final answer: the summary, or the vote where there is none or it cannot be read."""
        if self.summarizer is None:
            return self._vote(talk, "vote")
        summary = await talk.summarise(self.pool.named(self.summarizer))
        answer = ballots(talk.context, talk.question, [None if summary is None else summary.text])[0]
        if summary is not None and answer.parsed:
            return Reply.of(summary, final="summary", model=self.summarizer, answer=answer.key, **talk.record())
        return self._vote(talk, "vote_after_unparsed_summary")

    def _vote(self, talk: Discussion, final: str) -> Reply:
        answers = talk.answers[-1]
        outcome = vote(
            [answer.key for answer in answers],
            utility=metric_utility(talk.context.metric, talk.question, answers),
            skills=self.skills,
            tie="best_model",
        )
        if outcome is not None:
            reply, model = talk.last[outcome.voter], self.pool[outcome.voter]
            assert reply is not None  # a key was read from it
            meta = {"answer": outcome.key, "support": dict(outcome.support), "margin": outcome.margin}
            return Reply.of(reply, final=final, model=model.name, **meta, **talk.record())
        there = [i for i, reply in enumerate(talk.last) if reply is not None]
        skills = self.skills or [0.0] * len(self.pool)
        chosen = max(there, key=lambda i: (self.pool[i].name == self.summarizer, skills[i], -i))
        reply = talk.last[chosen]
        assert reply is not None  # by construction of `there`
        return Reply.of(reply, final="unparsed", model=self.pool[chosen].name, unparsed=True, **talk.record())


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
            chosen = pool.named(options.summarizer, "multiagent_refine.summarizer")
            return MultiagentRefineSystem(pool, options, chosen.name)
        if len(pool) == 1 or evaluation is None:
            return MultiagentRefineSystem(pool, options, pool[0].name)
        skills, best = evaluation.means(), evaluation.best()
        if options.summarizer == "best_summarizer":
            scores = await self._summary_scores(pool, dev, context, skills)
            context.note(summary_scores=dict(zip(pool.names, scores, strict=True)))
            best = max(range(len(pool)), key=lambda i: (scores[i], skills[i], -i))
        return MultiagentRefineSystem(pool, options, pool[best].name, skills)

    async def _summary_scores(
        self, pool: Pool, dev: Sequence[Example], context: Context, skills: Sequence[float]
    ) -> list[float]:
        """Return the mean dev score of every model's summaries of the same discussions."""
        system = MultiagentRefineSystem(pool, self.options, None, skills)

        async def one(example: Example, scope: Context) -> list[float]:
            talk = await system.discuss(example.question, scope)

            async def grade(model: Model) -> float:
                summary = await talk.summarise(model)
                return 0.0 if summary is None else (await scope.grade(example, Reply.of(summary))).value or 0.0

            return await scope.gather(grade(model) for model in pool)

        chosen = [dev[j] for j in sampled(len(dev), self.options, context)]
        rows = await context.each(chosen, one, label="summaries on dev")
        return [sum(row[i] for row in rows) / len(rows) for i in range(len(pool))]

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        wanted = self.options.summarizer
        if wanted in WORDS:
            return []
        try:
            Pool(pool).named(wanted, "summarizer")
        except ConfigError as error:
            return list(error.problems)
        return []
