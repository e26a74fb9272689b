"""Knowledge cards: the pool's models write passages, one of them answers with what selectors keep.

Feng et al., "Knowledge Card: Filling LLMs' Knowledge Gaps with Plug-in Specialized Language Models", arXiv 2305.09955; Liu et
al., "Generated Knowledge Prompting for Commonsense Reasoning", arXiv 2110.08387.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import attrs

from moco_core import ConfigError, Context, Cost, Evaluation, Example, Method, Model, Needs, Pool
from moco_method_knowledge_card.options import WORDS, Options
from moco_method_knowledge_card.system import KnowledgeCardSystem

__all__ = ["KnowledgeCard"]


class KnowledgeCard(Method[Options]):
    """Models write passages about the question; selectors keep what is relevant, short and true; one model answers."""

    Options = Options
    system = KnowledgeCardSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Knowledge cards"
    paper: ClassVar[str] = "arXiv 2305.09955, 2110.08387"

    def needs(self) -> Needs:
        options = self.options
        optional = {"embed"} if options.embeds else set[str]()
        if options.answering == "max_prob" or options.checker is not None:
            optional.add("score")
        return Needs(optional=optional, check=options.problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        cards = max(1, models - options.exclude_self)
        fit = models * dev if options.answerer in WORDS and models > 1 else 0
        if options.answerer == "best_reader" and models > 1:
            reading = models * (1 + self._shown(models) if options.answering == "max_prob" else 1)
            fit += (self._passages(models) + reading) * min(dev, options.dev_sample or dev)
        passages = self._seeking() if options.seeks else self._passages(cards)
        return Cost(
            fit=fit, respond=passages + self._answering(options.max_seek if options.seeks else self._shown(cards))
        )

    def _passages(self, cards: int) -> int:
        """Calls that make and select the passages of so many cards."""
        options = self.options
        written = cards * options.per_card if options.n3 else 0
        return written if options.mode == "plain" else written + self._selecting(min(written, options.n2), written)

    def _selecting(self, kept: int, written: int) -> int:
        options = self.options
        embedding = options.embeds and written > 1
        return embedding + kept * (options.summarizer is not None) + 2 * kept * (options.checker is not None)

    def _seeking(self) -> int:
        """Calls of a search: whether, what, which card, and its passages, every time."""
        options = self.options
        each = (
            2 + options.per_card + options.embeds + self._selecting(min(options.per_card, options.n2), options.per_card)
        )
        return options.max_seek * each

    def _shown(self, cards: int) -> int:
        """How many passages of so many cards are shown at most."""
        options = self.options
        written = cards * options.per_card
        return min(written, options.n3 and written if options.mode == "plain" else options.n3)

    def _answering(self, shown: int) -> int:
        """Calls of the answer: one, and one more where it cannot be read; or one per passage and one without."""
        return max(2 if shown else 1, shown + 1 if self.options.answering == "max_prob" else 0)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> KnowledgeCardSystem:
        options = self.options
        if options.answerer not in WORDS:
            return self._system(pool, pool.named(options.answerer, "knowledge_card.answerer"))
        if len(pool) == 1:
            return self._system(pool, pool[0])
        if not dev:
            raise ConfigError(
                f"knowledge_card.answerer: {options.answerer} is chosen on dev and there are no dev examples; raise the dev "
                "limit, or name a model"
            )
        evaluation = await context.evaluate(pool, dev, attrs.evolve(context.sampling, temperature=0.0))
        context.note(dev_scores=dict(zip(evaluation.names, evaluation.means(), strict=True)))
        best = evaluation.best()
        if options.answerer == "best_reader":
            best = await self._best_reader(pool, dev, evaluation, context)
        context.note(answerer=pool[best].name)
        return self._system(pool, pool[best])

    def _system(self, pool: Pool, answerer: Model) -> KnowledgeCardSystem:
        return self.system(pool, self.options, answerer.name)

    async def _best_reader(self, pool: Pool, dev: Sequence[Example], evaluation: Evaluation, context: Context) -> int:
        """Return the model that answers best with the same passages, which all models write; ties by its score alone."""
        options = self.options
        size = min(len(dev), options.dev_sample or len(dev))
        chosen = sorted(context.rng("knowledge_card", "dev", options.seed).sample(range(len(dev)), size))
        system = self._system(pool, pool[0])

        async def one(example: Example, scope: Context) -> list[float]:
            read = await system.read(example.question, scope, everybody=True)

            async def grade(model: Model) -> float:
                reply = await system.answer(model, read, example.question, scope, retry=False)
                return (await scope.grade(example, reply)).value or 0.0

            return await scope.gather(grade(model) for model in pool)

        rows = await context.each([dev[j] for j in chosen], one, label="reading passages on dev")
        scores = [math.fsum(row[i] for row in rows) / len(rows) for i in range(len(pool))]
        context.note(reader_scores=dict(zip(pool.names, scores, strict=True)))
        alone = evaluation.means()
        return max(range(len(pool)), key=lambda i: (scores[i], alone[i], -i))
