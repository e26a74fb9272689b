"""Mixture of agents.

Wang et al., "Mixture-of-Agents Enhances Large Language Model Capabilities", arXiv 2406.04692; Li et al., "Rethinking
Mixture-of-Agents", arXiv 2502.00674 (Self-MoA).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Evaluation,
    Example,
    Generation,
    Message,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    PromptTooLong,
    Question,
    Reply,
    System,
)
from moco_core.converters import floats, strings
from moco_method_mixture_of_agents.options import WORDS, Options
from moco_method_mixture_of_agents.prompts import arrange, sheet
from moco_toolkit_discussion import model_problems
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN, characters_per_token, send
from moco_toolkit_voting import ballots, metric_utility, vote

__all__ = ["MixtureOfAgents", "MixtureOfAgentsSystem"]


@attrs.frozen(kw_only=True)
class Proposals:
    """The replies of the last layer of proposers (None: failed or empty), and each layer's texts so far."""

    replies: tuple[Generation | None, ...]
    texts: tuple[tuple[str | None, ...], ...]

    @property
    def references(self) -> list[tuple[int, str]]:
        """The proposers that said something, and what."""
        return [(i, r.text.strip()) for i, r in enumerate(self.replies) if r is not None]


@attrs.frozen(eq=False, slots=False)
class MixtureOfAgentsSystem(System):
    """Who proposes (a model may stand there several times) and who aggregates; ``skills`` are dev means, if measured."""

    proposers: tuple[str, ...] = attrs.field(converter=strings)
    aggregator: str
    skills: tuple[float, ...] | None = attrs.field(default=None, converter=attrs.converters.optional(floats))

    async def respond(self, question: Question, context: Context) -> Reply:
        proposals = await self.propose(question, context)
        reply = await self.aggregate(self.pool.named(self.aggregator), proposals, question, context)
        return self.conclude(reply, proposals, question, context)

    async def propose(self, question: Question, context: Context) -> Proposals:
        """Return what the layers before the last come to; nothing where there are none."""
        options: Options = self.options
        models = [self.pool.named(name, "mixture_of_agents") for name in self.proposers]
        sampling = options.sampling(context.sampling)
        last, texts, scope = Proposals(replies=(), texts=()), [], context.role("proposer")
        for layer in range(1, options.layers):
            replies = await context.gather(
                (
                    self._ask(model, layer, i, last, question, scope, sampling, sample=models[:i].count(model))
                    for i, model in enumerate(models)
                ),
                tolerate=ModelCallError,
            )
            said = [r if isinstance(r, Generation) and r.text.strip() else None for r in replies]
            texts.append(tuple(None if r is None else r.text for r in said))
            last = Proposals(replies=tuple(said), texts=tuple(texts))
        return last

    async def aggregate(
        self, model: Model, proposals: Proposals, question: Question, context: Context
    ) -> Generation | ModelCallError:
        """Return a model's answer from the last proposals, or the error of its call. Raises PromptTooLong with the numbers."""
        options: Options = self.options
        sampling, scope = options.sampling(context.sampling, aggregator=True), context.role("aggregator")
        try:
            return await self._ask(model, options.layers, None, proposals, question, scope, sampling, sample=0)
        except PromptTooLong:
            raise
        except ModelCallError as error:
            return error

    def conclude(
        self, reply: Generation | ModelCallError, proposals: Proposals, question: Question, context: Context
    ) -> Reply:
        """Return the aggregator's answer; where it has none, the vote over the last proposals.

        Where those cannot be read either, it is the aggregator's own proposal, or the first, flagged ``unparsed``. Raises
        ModelCallError if no model said anything.
        """
        meta: dict[str, Any] = {"proposers": list(self.proposers), "layers": [list(row) for row in proposals.texts]}
        text = None if isinstance(reply, ModelCallError) else reply.text
        answer, *answers = ballots(context, question, [text, *(None if r is None else r.text for r in proposals.replies)])
        if isinstance(reply, Generation) and (answer.parsed or (not any(a.key for a in answers) and reply.text.strip())):
            return Reply.of(reply, model=self.aggregator, final="aggregate", answer=answer.key, **meta)
        outcome = vote(
            [a.key for a in answers],
            utility=metric_utility(context.metric, question, answers),
            skills=[self.skills[self.pool.names.index(name)] for name in self.proposers] if self.skills and answers else None,
            tie="best_model",
        )
        if outcome is not None:
            chosen = proposals.replies[outcome.voter]
            assert chosen is not None  # a key was read from it
            return Reply.of(chosen, model=self.proposers[outcome.voter], final="vote", answer=outcome.key, **meta)
        there = [i for i, r in enumerate(proposals.replies) if r is not None]
        if not there:
            raise reply if isinstance(reply, ModelCallError) else ModelCallError("every model's reply was empty")
        index = next((i for i in there if self.proposers[i] == self.aggregator), there[0])
        own = proposals.replies[index]
        assert own is not None  # by construction of `there`
        return Reply.of(own, model=self.proposers[index], final="unparsed", unparsed=True, **meta)

    async def _ask(
        self,
        model: Model,
        layer: int,
        reader: int | None,
        before: Proposals,
        question: Question,
        context: Context,
        sampling: Any,
        *,
        sample: int,
    ) -> Generation:
        """Ask a model with the references of the layer before, in its order; plainly where there are none."""
        options: Options = self.options
        references = before.references
        if not references:
            return await context.generate(model, question, sampling, sample=sample)
        if options.order == "shuffled":
            who = (model.fingerprint, model.copy, sample) if reader is not None else ("aggregator",)
            context.rng("mixture_of_agents", options.seed, layer, *who).shuffle(references)

        async def call(messages: Sequence[Message]) -> Generation:
            asked = arrange(question, messages[-1].content, options.role)
            return await context.generate(model, asked, sampling, sample=sample)

        own = next((r for name, r in zip(self.proposers, before.replies, strict=True) if name == model.name), None)
        sent = await send(
            call,
            model,
            sheet([text for _, text in references]),
            sampling.max_new_tokens,
            before=question.messages(),
            ratio=CHARACTERS_PER_TOKEN if own is None else characters_per_token(question.text(), own),
        )
        return sent.reply


class MixtureOfAgents(Method[Options]):
    """Layers of proposers read the answers of the layer before; an aggregator writes the final answer from the last."""

    Options = Options
    system = MixtureOfAgentsSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Mixture of agents"
    paper: ClassVar[str] = "arXiv 2406.04692"

    def needs(self) -> Needs:
        return Needs(check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        width = len(options.proposers) or min(models, options.top or models)
        proposals = width * (options.layers - 1)
        fit = 0
        if self._compares(models, dev):
            fit += models * dev
            if self._aggregator(dev) == "best_aggregator":
                fit += (proposals + models) * min(dev, options.dev_sample or dev)
        return Cost(fit=fit, respond=proposals + 1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MixtureOfAgentsSystem:
        options, wanted = self.options, self._aggregator(len(dev))
        if not self._compares(len(pool), len(dev)):
            name = pool[0].name if wanted in WORDS else pool.named(wanted, "aggregator").name
            return MixtureOfAgentsSystem(pool, options, self._proposers(pool, None), name)
        if not dev:
            what = "self_moa" if options.self_moa else "top" if options.top is not None else f"aggregator: {wanted}"
            raise ConfigError(
                f"mixture_of_agents.{what} needs dev examples, there are none; raise the dev limit, or name the models"
            )
        greedy = attrs.evolve(options.sampling(context.sampling), temperature=0.0)
        evaluation = await context.evaluate(pool, dev, greedy)
        skills = evaluation.means()
        context.note(dev_scores=dict(zip(pool.names, skills, strict=True)))
        name = pool[evaluation.best()].name
        if wanted not in WORDS:
            name = pool.named(wanted, "aggregator").name
        elif wanted == "first":
            name = pool[0].name
        system = MixtureOfAgentsSystem(pool, options, self._proposers(pool, evaluation), name, skills)
        if wanted != "best_aggregator":
            return system
        scores = await self._aggregating(system, dev, context)
        context.note(aggregator_scores=dict(zip(pool.names, scores, strict=True)))
        best = max(range(len(pool)), key=lambda i: (scores[i], skills[i], -i))
        return attrs.evolve(system, aggregator=pool[best].name)

    async def _aggregating(
        self, system: MixtureOfAgentsSystem, dev: Sequence[Example], context: Context
    ) -> list[float]:
        """Return every model's mean dev score as the aggregator of the same proposals."""
        options = self.options
        size = min(len(dev), options.dev_sample or len(dev))
        chosen = sorted(context.rng("mixture_of_agents", "dev", options.seed).sample(range(len(dev)), size))

        async def one(example: Example, scope: Context) -> list[float]:
            proposals = await system.propose(example.question, scope)

            async def grade(model: Model) -> float:
                reply = await system.aggregate(model, proposals, example.question, scope)
                if isinstance(reply, ModelCallError):
                    return 0.0
                return (await scope.grade(example, Reply.of(reply))).value or 0.0

            return await scope.gather(grade(model) for model in system.pool)

        rows = await context.each([dev[j] for j in chosen], one, label="aggregators on dev")
        return [sum(row[i] for row in rows) / len(rows) for i in range(len(system.pool))]

    def _aggregator(self, dev: int) -> str | int:
        """Return how the aggregator is chosen."""
        wanted = self.options.aggregator
        return ("best_aggregator" if dev else "first") if wanted == "auto" else wanted

    def _compares(self, models: int, dev: int) -> bool:
        """Whether dev scores decide anything."""
        options = self.options
        chosen = self._aggregator(dev) in ("best", "best_aggregator")
        return models > 1 and (chosen or options.self_moa or options.top is not None)

    def _proposers(self, pool: Pool, evaluation: Evaluation | None) -> list[str]:
        options = self.options
        if options.proposers:
            return [pool.named(name, "proposers").name for name in options.proposers]
        if evaluation is None:
            return list(pool.names)
        if options.self_moa:
            return [pool[evaluation.best()].name] * len(pool)
        means = evaluation.means()
        best = sorted(range(len(pool)), key=lambda i: (-means[i], i))[: options.top]
        return [pool[i].name for i in sorted(best)]

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options = self.options
        out = model_problems(pool, options.proposers, "proposers")
        return out if options.aggregator in WORDS else [*out, *model_problems(pool, [options.aggregator], "aggregator")]
