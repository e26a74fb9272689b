"""SLM-MUX: models never read each other; each answers several times, and the most self-consistent one is believed.

Wang et al., "SLM-MUX: Orchestrating Small Language Models for Reasoning", arXiv 2510.05077.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    Answer,
    ConfigError,
    Context,
    Cost,
    Example,
    Generation,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
)
from moco_core.converters import floats, strings
from moco_method_slm_mux.confidence import Belief, believed, confident
from moco_method_slm_mux.options import Options
from moco_method_slm_mux.search import Drawn, best_subset, mux_accuracy, union_less_penalty
from moco_toolkit_voting import OPEN_KINDS, Utility, ballots, cosine, metric_utility

__all__ = ["SlmMux", "SlmMuxSystem"]

_FEW = 30
"""Dev questions below which a selection is as likely luck."""


@attrs.frozen(eq=False, slots=False)
class SlmMuxSystem(System):
    """The selected models by name, and their dev accuracies, if measured."""

    members: tuple[str, ...] = attrs.field(converter=strings)
    skills: tuple[float, ...] | None = attrs.field(default=None, converter=attrs.converters.optional(floats))

    async def respond(self, question: Question, context: Context) -> Reply:
        return await self.respond_weighed(question, context, {})

    async def respond_weighed(self, question: Question, context: Context, weights: Mapping[str, float]) -> Reply:
        """See :class:`moco_toolkit_voting.Weighable`: the weights multiply a model's confidence in its answers."""
        options: Options = self.options
        models = [self.pool.named(name, "slm_mux") for name in self.members]
        drawn = await _draw(models, question, options.sampling(context.sampling), options.samples, context)
        if all(reply is None for row in drawn for reply in row):
            raise ModelCallError("every sample of every model failed")
        answers = [ballots(context, question, [None if r is None else r.text for r in row]) for row in drawn]
        beliefs = await _beliefs(answers, question, options, self.pool, context)
        beliefs = [b.weighed(weights[m.name]) if m.name in weights else b for m, b in zip(models, beliefs, strict=True)]
        rng = context.rng("slm_mux", "tie", options.seed) if options.tie == "random" else None
        chosen = believed(beliefs, tie=options.tie, skills=self.skills, rng=rng)
        meta: dict[str, Any] = {
            "beliefs": [
                {"model": m.name, "answer": b.key, "confidence": b.confidence, "answers": [a.key for a in row]}
                for m, b, row in zip(models, beliefs, answers, strict=True)
            ]
        }
        if chosen is None:
            index, sample = self._spokesman(drawn)
            meta["unparsed"] = True
        else:
            index, tied = chosen
            sample = beliefs[index].sample
            meta |= {
                "answer": beliefs[index].key,
                "confidence": beliefs[index].confidence,
                "tied": [models[i].name for i in tied] if len(tied) > 1 else [],
            }
        reply = drawn[index][sample]
        assert reply is not None  # a key was read from it, or it is the spokesman's
        return Reply.of(reply, model=models[index].name, **meta)

    def _spokesman(self, drawn: Sequence[Sequence[Generation | None]]) -> tuple[int, int]:
        """Return whose sample is handed on if nothing could be read: the best dev model's first that there is."""
        skills = self.skills or [0.0] * len(drawn)
        there = [(i, j) for i, row in enumerate(drawn) for j, reply in enumerate(row) if reply is not None]
        return max(there, key=lambda at: (skills[at[0]], -at[0], -at[1]))


class SlmMux(Method[Options]):
    """Every model answers several times; the answer of the one that agrees most with itself stands."""

    Options = Options
    system = SlmMuxSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "SLM-MUX"
    paper: ClassVar[str] = "arXiv 2510.05077"

    def needs(self) -> Needs:
        return Needs(optional={"embed"}, check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        taking_part = models if options.select == "none" else min(models, options.sizes[1])
        fit = dev * (models * options.dev_samples + 1) if self._fits(models) else 0
        return Cost(fit=fit, respond=taking_part * options.samples + 1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SlmMuxSystem:
        options = self.options
        if not self._fits(len(pool)):
            return SlmMuxSystem(pool, options, pool.names)
        if not dev:
            raise ConfigError(
                "slm_mux: ties and the selection of models are decided by dev accuracy and there are no dev examples; raise "
                "the dev limit, or choose tie=order and select=none"
            )
        rows = await context.each(dev, partial(self._sample, pool), label="samples on dev")
        skills = [_accuracy(options.dev_accuracy, [row[i] for row in rows]) for i in range(len(pool))]
        context.note(dev_accuracy=dict(zip(pool.names, skills, strict=True)))
        members = tuple(range(len(pool))) if options.select == "none" else self._select(rows, skills, pool, context)
        return SlmMuxSystem(pool, options, [pool.names[i] for i in members], [skills[i] for i in members])

    def _fits(self, models: int) -> bool:
        return models > 1 and self.options.uses_dev

    async def _sample(self, pool: Pool, example: Example, scope: Context) -> list[Drawn]:
        """Return what every model draws on one dev question."""
        options, question = self.options, example.question
        drawn = await _draw(pool, question, options.sampling(scope.sampling), options.dev_samples, scope)
        answers = [ballots(scope, question, [None if r is None else r.text for r in row]) for row in drawn]
        beliefs = await _beliefs(answers, question, options, pool, scope)

        async def grade(reply: Generation | None) -> float:
            return 0.0 if reply is None else (await scope.grade(example, Reply.of(reply))).value or 0.0

        scores = [await scope.gather(grade(reply) for reply in row) for row in drawn]
        return [
            Drawn(keys=tuple(a.key for a in row), scores=tuple(found), belief=belief)
            for row, found, belief in zip(answers, scores, beliefs, strict=True)
        ]

    def _select(
        self, rows: Sequence[Sequence[Drawn]], skills: Sequence[float], pool: Pool, context: Context
    ) -> tuple[int, ...]:
        """Return the models that take part; note what the choice is worth, also on the half of dev it was not made on."""
        options = self.options

        def value(part: Sequence[Sequence[Drawn]], members: tuple[int, ...]) -> tuple[float, float]:
            if options.select == "union":
                return union_less_penalty(part, members, robust=options.robust_level, penalty=options.penalty)
            return mux_accuracy(part, members, tie=options.tie, skills=skills)

        chosen = best_subset(len(pool), options.sizes, partial(value, rows))
        told: dict[str, Any] = {"selected": [pool.names[i] for i in chosen], "worth": value(rows, chosen)[0]}
        if len(rows) > 1:
            half = best_subset(len(pool), options.sizes, partial(value, rows[::2]))
            told["worth_of_half_on_the_other"] = value(rows[1::2], half)[0]
        context.note(**told)
        if len(rows) < _FEW:
            context.warn(f"slm_mux: models are selected on {len(rows)} dev examples, which may well be luck")
        return chosen

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options = self.options
        out: list[str] = []
        if options.embedder is not None:
            try:
                _embedder(options, Pool(pool))
            except ConfigError as error:
                out += error.problems
        if options.select != "none" and options.sizes[0] > len(pool):
            out.append(f"size: {options.size} models are to be selected, the pool has {len(pool)}")
        return out


async def _draw(
    models: Sequence[Model], question: Question, sampling: Sampling, samples: int, context: Context
) -> list[list[Generation | None]]:
    """Return the samples of every model; None for one whose call failed, which counts as drawn and not readable."""
    calls = [(model, k) for model in models for k in range(samples)]
    replies = await context.gather(
        (context.generate(model, question, sampling, sample=k) for model, k in calls), tolerate=ModelCallError
    )
    texts = [None if isinstance(reply, ModelCallError) else reply for reply in replies]
    return [texts[i * samples : (i + 1) * samples] for i in range(len(models))]


async def _beliefs(
    answers: Sequence[Sequence[Answer]], question: Question, options: Options, pool: Pool, context: Context
) -> list[Belief]:
    """Return what each model's samples come to: answers are equal by key, by the metric's utility, or by embeddings."""
    flat = [answer for row in answers for answer in row]
    utility: Utility | None = metric_utility(context.metric, question, flat)
    closeness: Utility | None = None
    if utility is None and question.answer_kind in OPEN_KINDS:
        closeness = await _closeness(flat, options, pool, context)
        if closeness is not None:
            measure = closeness
            utility = lambda a, b: float(measure(a, b) >= options.tau)  # noqa: E731
    return [confident([answer.key for answer in row], utility, closeness) for row in answers]


async def _closeness(answers: Sequence[Answer], options: Options, pool: Pool, context: Context) -> Utility | None:
    """Return the cosine of two whole replies by their keys; None, with a warning, where no model can embed."""
    model = _embedder(options, pool)
    if model is None:
        context.warn(
            "slm_mux: whole replies are compared exactly, so that hardly any two agree and the best dev model answers all; add "
            "a model that can embed"
        )
        return None
    texts = {answer.key: answer.text or answer.key for answer in reversed(answers) if answer.key is not None}
    if len(texts) < 2:
        return None
    vectors = dict(zip(texts, await context.embed(model, list(texts.values())), strict=True))
    return lambda a, b: cosine(vectors[a], vectors[b])


def _embedder(options: Options, pool: Pool) -> Model | None:
    """Return the model that embeds, if there is one. Raises ConfigError if the named one cannot."""
    if options.embedder is None:
        return next((m for m in pool if m.can("embed")), None)
    model = pool.named(options.embedder, "embedder")
    if not model.can("embed"):
        raise ConfigError(f"embedder: model {model.name!r} cannot embed; name one that can")
    return model


def _accuracy(kind: str, drawn: Sequence[Drawn]) -> float:
    """Return a model's dev accuracy: of its most frequent answers, of its first samples, or of all of them."""
    if kind == "majority":
        values = [d.score for d in drawn]
    elif kind == "single":
        values = [d.scores[0] for d in drawn]
    else:
        values = [math.fsum(d.scores) / len(d.scores) for d in drawn]
    return math.fsum(values) / len(values)
