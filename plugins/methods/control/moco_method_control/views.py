"""Contexts seen through changed decoding or changed scores. What a view does not define is the context's own."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs

from moco_core import Context, Evaluation, Example, Generation, Model, Question, Reply, Sampling, Score

__all__ = ["Placebo", "Sampled", "shuffled"]


class View(ABC):
    """A context, and all contexts that are made from it, seen through one change."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    @abstractmethod
    def again(self, context: Context) -> Context:
        """Return another context seen in the same way."""

    def on(self, question: Question) -> Context:
        return self.again(self._context.on(question))

    def role(self, name: str) -> Context:
        return self.again(self._context.role(name))

    async def each(self, examples: Sequence[Any], work: Callable[[Any, Context], Awaitable[Any]], **rest: Any) -> list[Any]:
        return await self._context.each(examples, lambda item, context: work(item, self.again(context)), **rest)


class Sampled(View):
    """Decodes with other settings than the run's, wherever the method leaves that to the run."""

    def __init__(self, context: Context, sampling: Sampling) -> None:
        super().__init__(context)
        self.sampling = sampling

    def again(self, context: Context) -> Context:
        return cast(Context, Sampled(context, self.sampling))

    async def generate(self, model: Model, prompt: Any, sampling: Sampling | None = None, **rest: Any) -> Generation:
        return await self._context.generate(model, prompt, sampling or self.sampling, **rest)

    async def evaluate(self, models: Any, examples: Any, sampling: Sampling | None = None, **rest: Any) -> Evaluation:
        return await self._context.evaluate(models, examples, sampling or self.sampling, **rest)


class Placebo(View):
    """Gives every reply a score drawn at random from ``marginals``; one reply to one question always gets the same.

    ``originals`` are the examples with their own references, by id: replies are read, and judged, as ever.
    """

    def __init__(self, context: Context, marginals: Sequence[float], originals: Mapping[str, Example]) -> None:
        super().__init__(context)
        self._marginals, self._originals = marginals, originals

    def again(self, context: Context) -> Context:
        return cast(Context, Placebo(context, self._marginals, self._originals))

    async def grade(self, example: Example, reply: Reply) -> Score:
        score = await self._context.grade(self._originals.get(example.id, example), reply)
        return attrs.evolve(score, value=self._drawn(example, reply.text, score.value))

    async def evaluate(self, models: Any, examples: Sequence[Example], *rest: Any, **more: Any) -> Evaluation:
        asked = [self._originals.get(e.id, e) for e in examples]
        found = await self._context.evaluate(models, asked, *rest, **more)
        scores = tuple(
            tuple(self._drawn(e, g.text, s) for e, g, s in zip(examples, replies, row, strict=True))
            for replies, row in zip(found.replies, found.scores, strict=True)
        )
        return attrs.evolve(found, scores=scores)

    def _drawn(self, example: Example, text: str, value: float | None) -> float | None:
        if value is None or not self._marginals:
            return value
        return self._context.on(example.question).rng("placebo", text).choice(self._marginals)

    # what is computed from random scores is not what others computed from the true ones

    async def once(self, what: Mapping[str, Any], compute: Callable[[], Awaitable[Any]]) -> Any:
        return await self._context.once(self._own(what), compute)

    async def artifact(self, what: Mapping[str, Any], build: Callable[[Path], Awaitable[None]], **rest: Any) -> Path:
        return await self._context.artifact(self._own(what), build, **rest)

    def _own(self, what: Mapping[str, Any]) -> dict[str, Any]:
        return {**what, "placebo": self._context.seed}


def shuffled(dev: Sequence[Example], rng: random.Random) -> list[Example]:
    """Return dev with the references moved among the examples whose answers have one form; all else stays."""
    groups: dict[Any, list[int]] = {}
    for index, example in enumerate(dev):
        question = example.question
        groups.setdefault((question.answer_kind, question.labels, len(question.choices)), []).append(index)
    out = list(dev)
    for places in groups.values():
        for index, other in zip(places, rng.sample(places, len(places)), strict=True):
            source = dev[other]
            out[index] = attrs.evolve(dev[index], references=source.references, answer=source.answer, meta=source.meta)
    return out
