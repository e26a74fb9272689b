"""Nudging: a base model writes; where it is unsure, a small aligned model inserts a few words.

Fei, Razeghi and Singh 2024, "Nudging: Inference-time Alignment of LLMs via Guided Decoding", arXiv 2410.09300 (ACL 2025).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import (
    ConfigError,
    Context,
    Cost,
    Example,
    Method,
    Model,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
)
from moco_method_nudging.options import Options

__all__ = ["Nudging", "NudgingSystem"]


@attrs.frozen(eq=False, slots=False)
class NudgingSystem(System):
    """The pool's indices of the base model and its nudging model, and the confidence that the base model needs."""

    base: int
    nudging: int
    gamma: float

    @cached_property
    def shared(self) -> bool:
        """Whether the two models have one tokenizer, so that they exchange token ids instead of text."""
        return decoding.exchange_ids([self.pool[self.base], self.pool[self.nudging]])

    async def respond(self, question: Question, context: Context) -> Reply:
        from moco_method_nudging.writing import write  # torch is imported when it is needed

        models = [self.pool[self.base], self.pool[self.nudging]]
        # the method's temperature, the run's length and stop strings
        sampling = attrs.evolve(context.sampling, temperature=self.options.temperature)

        async def compute() -> dict[str, Any]:
            return await write(models, question, self.options, self.gamma, sampling, self.shared, context)

        return await decoding.answer_once(
            context,
            "nudging",
            models,
            question,
            self.options.deciding(self.gamma),
            compute,
            seeded=not sampling.greedy,
            sampling=sampling,
        )


class Nudging(Method[Options]):
    """Let a small aligned model guide a large base model."""

    Options = Options
    system = NudgingSystem
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "Nudging"
    paper: ClassVar[str] = "arXiv 2410.09300"

    def needs(self) -> Needs:
        return Needs(
            capabilities=frozenset({"generate"}),
            optional=frozenset({"step", "logprobs"}),
            min_models=2,
            check=self._problems,
        )

    def _roles(self, pool: Sequence[Model]) -> tuple[int, int]:
        return decoding.two_roles(pool, {"base": self.options.base, "nudging": self.options.nudging})

    def _candidates(self, pool: Pool, base: int) -> list[int]:
        """Return the indices of the nudging models that tune tries. Raises ConfigError if one is not there."""
        named = [list(pool).index(pool.named(name, "candidates")) for name in self.options.candidates]
        return [i for i in named or range(len(pool)) if i != base]

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        if len(pool) < 2:
            return []  # that there are too few is said already
        try:
            base = self._roles(pool)[0]
            if self.options.tune and not self._candidates(Pool(pool), base):
                return ["candidates: the base model is the only one; name another"]
        except ConfigError as error:
            return list(error.problems)
        model = pool[base]
        if model.can("step"):
            return []
        if not model.can("logprobs"):
            return [
                f"model {model.name!r} can neither advance token by token nor return the log-probabilities of its tokens "
                "(capability 'step' or 'logprobs'), and the base model needs one of them; use an engine or server that "
                "returns log-probabilities (`moco list pool --can logprobs`)"
            ]
        if self.options.temperature > 0:
            return [
                f"temperature: model {model.name!r} only writes text, whose log-probabilities are those of its best tokens "
                "with temperature=0 alone; use that, or models that can step (`moco list pool --can step`)"
            ]
        return []

    def cost(self, models: int, dev: int) -> Cost:
        return self._cost(models, dev, respond=2)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        """One session per model that steps; a model that only writes text is asked anew in every round."""
        o = self.options
        base, nudging = (pool[i] for i in self._roles(pool))
        tried = [pool[i] for i in self._candidates(Pool(pool), self._roles(pool)[0])] if o.tune else []
        # a nudge is one request; the base model looks before each of its words but the first, and then writes in chunks, of
        # which the last may be asked for again up to the token that it was unsure of
        looking = o.max_rounds * (o.nudge_tokens + 1) + math.ceil(sampling.max_new_tokens / o.base_chunk)
        asked = 1 if base.can("step") else looking
        asked += 1 if all(m.can("step") for m in (nudging, *tried)) else o.max_rounds
        return self._cost(len(pool), dev, respond=asked)

    def _cost(self, models: int, dev: int, respond: int) -> Cost:
        tuned = len(self.options.gamma_grid) * (len(self.options.candidates) or models - 1)
        return Cost(fit=respond * tuned * dev if self.options.tune else 0, respond=respond)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> NudgingSystem:
        base, nudging = self._roles(pool)
        best = NudgingSystem(pool, self.options, base, nudging, self.options.gamma)
        if not self.options.tune:
            return best
        if not dev:
            raise ConfigError("tune: needs dev examples; set tune=false")
        top = -math.inf
        # ascending gamma: equal scores stay with fewer nudges
        for gamma in sorted(self.options.gamma_grid):
            for candidate in self._candidates(pool, base):
                system = NudgingSystem(pool, self.options, base, candidate, gamma)
                label = f"gamma {gamma:g}, {pool[candidate].name}"
                mean = await decoding.mean_score(system, dev, context, label=label)
                context.note(gamma=gamma, nudging=pool[candidate].name, score=mean)
                if mean > top:
                    best, top = system, mean
        return best
