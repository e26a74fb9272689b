"""Multi-agent refinement and debate.

Madaan et al., "Self-Refine: Iterative Refinement with Self-Feedback", arXiv 2303.17651; Du et al., "Improving
Factuality and Reasoning in Language Models through Multiagent Debate", arXiv 2305.14325.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Example,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
    option,
)
from moco_method_multiagent_refine.discussion import Discussion
from moco_toolkit_voting import ballots, metric_utility, vote

__all__ = ["MultiagentRefine", "MultiagentRefineOptions", "MultiagentRefineSystem"]

_WORDS = ("best", "best_summarizer", "vote")


@attrs.frozen(kw_only=True)
class MultiagentRefineOptions:
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
        None, ge=1, help="dev examples discussed to choose the best summarizer; none takes all"
    )
    seed: int = option(
        0, help="added to the run's seed for the order of quotes; replies are sampled with the run's alone"
    )


class MultiagentRefineSystem(System):
    """The pool as a discussion. ``skills`` are the models' dev means, if they were measured."""

    def __init__(
        self,
        pool: Pool,
        options: MultiagentRefineOptions,
        summarizer: Model | None,
        skills: Sequence[float] | None = None,
    ) -> None:
        self.pool = pool
        self.options = options
        self.summarizer = summarizer
        self.skills = None if skills is None else tuple(skills)

    def state(self) -> Mapping[str, Any]:
        return {
            "summarizer": None if self.summarizer is None else self.summarizer.name,
            "skills": None if self.skills is None else list(self.skills),
        }

    async def respond(self, question: Question, context: Context) -> Reply:
        talk = await self.discuss(question, context)
        if self.summarizer is None:
            return self._vote(talk, context, "vote")
        summary = await talk.summarise(self.summarizer)
        answer = ballots(context, question, [None if summary is None else summary.text])[0]
        if summary is not None and answer.parsed:
            return Reply.of(summary, final="summary", model=self.summarizer.name, answer=answer.key, **talk.record())
        return self._vote(talk, context, "vote_after_unparsed_summary")

    async def discuss(self, question: Question, context: Context) -> Discussion:
        """Hold rounds 0 to R and return what was said. Raises ModelCallError if no model ever answered."""
        options = self.options
        talk = Discussion(
            pool=self.pool,
            question=question,
            context=context,
            sampling=_sampling(options, context),
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

    def _vote(self, talk: Discussion, context: Context, final: str) -> Reply:
        answers = talk.answers[-1]
        outcome = vote(
            [answer.key for answer in answers],
            utility=metric_utility(context.metric, talk.question, answers),
            skills=self.skills,
            tie="best_model",
        )
        if outcome is not None:
            reply, model = talk.last[outcome.voter], self.pool[outcome.voter]
            assert reply is not None  # a key was read from it
            meta = {"answer": outcome.key, "support": dict(outcome.support), "margin": outcome.margin}
            return Reply.of(reply, final=final, model=model.name, **meta, **talk.record())
        there = [i for i, reply in enumerate(talk.last) if reply is not None]
        chosen = max(there, key=lambda i: (self.pool[i] is self.summarizer, self.skills[i] if self.skills else 0.0, -i))
        reply = talk.last[chosen]
        assert reply is not None  # by construction of `there`
        return Reply.of(reply, final="unparsed", model=self.pool[chosen].name, unparsed=True, **talk.record())


class MultiagentRefine(Method[MultiagentRefineOptions]):
    """All models answer; in every round each reads the others' last answers and rewrites its own; one text ends it."""

    Options = MultiagentRefineOptions
    level = "text"
    title = "Multi-agent refinement"
    paper = "Madaan et al. 2023, arXiv 2303.17651; Du et al. 2023, arXiv 2305.14325"

    def needs(self) -> Needs:
        return Needs(check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        talk = models * (options.rounds + 1)
        respond = talk + (options.summarizer != "vote")
        fit = 0
        if options.summarizer in ("best", "best_summarizer") and models > 1:
            fit = models * dev
        if options.summarizer == "best_summarizer" and models > 1:
            fit += (talk + models) * min(dev, options.dev_sample or dev)
        return Cost(fit=fit, respond=respond)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MultiagentRefineSystem:
        options = self.options
        if options.summarizer == "vote":
            return MultiagentRefineSystem(pool, options, None)
        if options.summarizer not in _WORDS:
            return MultiagentRefineSystem(pool, options, pool.named(options.summarizer, "multiagent_refine.summarizer"))
        if len(pool) == 1:
            return MultiagentRefineSystem(pool, options, pool[0])
        if not dev:
            raise ConfigError(
                f"multiagent_refine.summarizer: {options.summarizer} needs dev examples, there are none; "
                "raise the dev limit, choose vote, or name a model"
            )
        evaluation = await context.evaluate(pool, dev, _greedy(options, context))
        skills = evaluation.means()
        context.note(dev_scores=dict(zip(evaluation.names, skills, strict=True)))
        best = evaluation.best()
        if options.summarizer == "best_summarizer":
            scores = await self._summary_scores(pool, dev, context, skills)
            context.note(summary_scores=dict(zip(pool.names, scores, strict=True)))
            best = max(range(len(pool)), key=lambda i: (scores[i], skills[i], -i))
        return MultiagentRefineSystem(pool, options, pool[best], skills)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> MultiagentRefineSystem:
        name = state["summarizer"]
        return MultiagentRefineSystem(pool, self.options, None if name is None else pool.named(name), state["skills"])

    async def _summary_scores(
        self, pool: Pool, dev: Sequence[Example], context: Context, skills: Sequence[float]
    ) -> list[float]:
        """Return the mean dev score of every model's summaries of the same discussions."""
        chosen = list(dev)
        if self.options.dev_sample is not None and self.options.dev_sample < len(dev):
            picked = context.rng("multiagent_refine", "dev", self.options.seed).sample(
                range(len(dev)), self.options.dev_sample
            )
            chosen = [dev[i] for i in sorted(picked)]
        system = MultiagentRefineSystem(pool, self.options, None, skills)

        async def one(example: Example, scope: Context) -> list[float]:
            talk = await system.discuss(example.question, scope)

            async def grade(model: Model) -> float:
                summary = await talk.summarise(model)
                return 0.0 if summary is None else (await scope.grade(example, Reply.of(summary))).value or 0.0

            return await scope.gather(grade(model) for model in pool)

        rows = await context.each(chosen, one, label="summaries on dev")
        return [sum(row[i] for row in rows) / len(rows) for i in range(len(pool))]

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        wanted = self.options.summarizer
        if wanted in _WORDS:
            return []
        try:
            Pool(pool).named(wanted, "summarizer")
        except ConfigError as error:
            return [str(error)]
        return []


def _sampling(options: MultiagentRefineOptions, context: Context) -> Sampling:
    run = context.sampling
    return attrs.evolve(
        run,
        temperature=options.temperature,
        top_p=options.top_p,
        max_new_tokens=options.max_new_tokens or run.max_new_tokens,
    )


def _greedy(options: MultiagentRefineOptions, context: Context) -> Sampling:
    return attrs.evolve(_sampling(options, context), temperature=0.0)
