"""Feedback among models: review and revise, or decide by reviews or a challenge whether to answer at all.

Feng et al., "Don't Hallucinate, Abstain: Identifying LLM Knowledge Gaps via Multi-LLM Collaboration", arXiv 2402.00367.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import attrs

from moco_core import ConfigError, Context, Cost, Evaluation, Example, Method, Needs, Pool, Question, Reply
from moco_method_multiagent_feedback.abstaining import Counts, choose_threshold
from moco_method_multiagent_feedback.options import WORDS, Options
from moco_method_multiagent_feedback.system import MultiagentFeedbackSystem
from moco_toolkit_discussion import Talk, summary_scores

__all__ = ["MultiagentFeedback"]


class MultiagentFeedback(Method[Options]):
    """Models review each other's answers; authors revise them, or an area chair or a challenge decides whether to answer."""

    Options = Options
    system = MultiagentFeedbackSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Multi-agent feedback"
    paper: ClassVar[str] = "arXiv 2402.00367"

    def needs(self) -> Needs:
        options = self.options
        scores = options.final == "abstain" and options.verdict != "write"
        return Needs(optional=("score",) if scores else (), check=options.problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        reviews = options.reviews(models) * (2 if models == 1 else 1)
        talk = models * (1 + options.rounds * (reviews + 1))
        respond = {
            "summarize": talk + 1,
            "vote": talk,
            "abstain": 1 + reviews + 2,
            "compete": 3,
        }[options.final]
        sample = min(dev, options.dev_sample or dev)
        fit = models * dev if options.evaluates(models) else 0
        if options.summarizer == "best_summarizer" and models > 1:
            fit += (talk + models) * sample
        if options.abstains:
            fit += respond * sample
        return Cost(fit=fit, respond=respond)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MultiagentFeedbackSystem:
        options = self.options
        evaluation: Evaluation | None = None
        if options.evaluates(len(pool)):
            if not dev:
                raise ConfigError(
                    "multiagent_feedback: summarizer and proposer are chosen by dev scores and there are no dev examples; "
                    "raise the dev limit, or name the models"
                )
            greedy = attrs.evolve(options.sampling(context.sampling), temperature=0.0)
            evaluation = await context.evaluate(pool, dev, greedy)
            context.note(dev_scores=dict(zip(evaluation.names, evaluation.means(), strict=True)))
        system = MultiagentFeedbackSystem(
            pool,
            options,
            summarizer=None if options.final in ("vote", "compete") else _chosen(pool, options.summarizer, evaluation),
            proposer=_chosen(pool, options.proposer, evaluation) if options.abstains else None,
            threshold=(0.5 if options.threshold is None else options.threshold) if options.final == "abstain" else None,
            skills=None if evaluation is None else evaluation.means(),
        )
        self._check_chair(system)
        if options.abstains and dev:
            return await self._decide_on_dev(system, self._sample(dev, context), context)
        if options.summarizer == "best_summarizer" and len(pool) > 1:
            return await self._best_summarizer(system, self._sample(dev, context), context)
        if self._graded(system):
            raise ConfigError(
                "multiagent_feedback: the threshold of abstention is chosen on dev and there are no dev examples; raise the "
                "dev limit, or set method.threshold"
            )
        return system

    async def _best_summarizer(
        self, system: MultiagentFeedbackSystem, dev: Sequence[Example], context: Context
    ) -> MultiagentFeedbackSystem:
        async def talk(question: Question, scope: Context) -> Talk:
            return (await system.discuss(question, scope))[0]

        names, skills = system.pool.names, system.skills
        assert skills is not None  # best_summarizer is chosen with them
        scores = await summary_scores(talk, len(names), dev, context)
        context.note(summary_scores=dict(zip(names, scores, strict=True)))
        best = max(range(len(names)), key=lambda i: (scores[i], skills[i], -i))
        return attrs.evolve(system, summarizer=names[best])

    async def _decide_on_dev(
        self, system: MultiagentFeedbackSystem, dev: Sequence[Example], context: Context
    ) -> MultiagentFeedbackSystem:
        """Choose the threshold where there is one to choose, and note what abstaining is worth on dev."""

        async def one(example: Example, scope: Context) -> tuple[float, Reply]:
            reply = await system.decide(example.question, scope)
            answered = attrs.evolve(reply, abstained=False)
            return (await scope.grade(example, answered)).value or 0.0, reply

        rows = await context.each(dev, one, label="decisions on dev")
        scores, abstained = [score for score, _ in rows], [reply.abstained for _, reply in rows]
        if self._graded(system):
            chances = [float(reply.meta["wrong"]) for _, reply in rows]
            threshold = choose_threshold(scores, chances)
            abstained = [chance >= threshold for chance in chances]
            context.note(threshold=threshold)
            system = attrs.evolve(system, threshold=threshold)
        context.note(dev_abstention=Counts.of(scores, abstained).figures(), dev_examples=len(rows))
        return system

    def _check_chair(self, system: MultiagentFeedbackSystem) -> None:
        if self.options.final != "abstain" or self.options.verdict != "score" or system.summarizer is None:
            return
        if not system.pool.named(system.summarizer).can("score"):
            raise ConfigError(
                f"multiagent_feedback.verdict: the area chair {system.summarizer!r} cannot score labels; choose verdict=write"
            )

    def _graded(self, system: MultiagentFeedbackSystem) -> bool:
        """Whether there is a threshold to choose: none is given, and the area chair gives probabilities."""
        options = self.options
        if options.final != "abstain" or options.threshold is not None or options.verdict == "write":
            return False
        assert system.summarizer is not None  # the area chair
        return system.pool.named(system.summarizer).can("score")

    def _sample(self, dev: Sequence[Example], context: Context) -> list[Example]:
        """Return the dev examples that are discussed: all, or so many drawn by the run's seed and the option's."""
        size = min(len(dev), self.options.dev_sample or len(dev))
        rng = context.rng("multiagent_feedback", "dev", self.options.seed)
        return [dev[j] for j in sorted(rng.sample(range(len(dev)), size))]


def _chosen(pool: Pool, wanted: str | int, evaluation: Evaluation | None) -> str:
    """Return the model that an option names, or the best on dev."""
    if wanted not in WORDS:
        return pool.named(wanted, "multiagent_feedback").name
    return pool[0 if evaluation is None else evaluation.best()].name
