"""Contrastive decoding: add what good models say to a base model's scores, subtract what bad ones say.

DExperts (Liu et al. 2021, arXiv 2105.03023), proxy tuning (Liu et al. 2024, arXiv 2401.08565), contrastive decoding (Li et al.
2022, arXiv 2210.15097; O'Brien and Lewis 2023, arXiv 2309.09117), and the form with several experts ranked on dev.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import (
    CapabilityError,
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
from moco_method_logit_contrastive.options import Options, strength_name
from moco_method_logit_contrastive.roles import Roles, candidates_of, contrast_model, named_roles

__all__ = ["ContrastSystem", "LogitContrastive"]


@attrs.frozen(eq=False, slots=False)
class ContrastSystem(System):
    """The contrasted model: the pool's indices of base, experts and anti-experts, and the strength."""

    base: int
    experts: Sequence[int]
    antis: Sequence[int]
    strength: float

    @cached_property
    def model(self) -> Model:
        """The joint model."""
        roles = Roles(self.base, tuple(self.experts), tuple(self.antis))
        return contrast_model(self.pool, self.options, roles, self.strength)

    async def respond(self, question: Question, context: Context) -> Reply:
        generation = await context.generate(self.model, question)
        return Reply.of(generation, share=dict(generation.meta.get("share", {})))


class LogitContrastive(Method[Options]):
    """Contrast good models with bad ones at every token."""

    Options = Options
    system = ContrastSystem
    level: ClassVar[Literal["logit"]] = "logit"
    title: ClassVar[str] = "Contrastive decoding"
    paper: ClassVar[str] = "arXiv 2210.15097, 2105.03023, 2401.08565, 2309.09117"

    def needs(self) -> Needs:
        return Needs(capabilities=frozenset({"generate", "step"}), min_models=self._least, check=self._problems)

    @property
    def _least(self) -> int:
        """How many models a pool must have: enough for all roles, and for those given by index."""
        o = self.options
        named = (o.base, *o.experts, *o.anti_experts, *o.candidates)
        return max(2 * o.k if o.roles == "dev" else 2, *(i + 1 for i in named if isinstance(i, int)), 2)

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        if len(pool) < self._least:
            return []  # that there are too few is said already
        explicit, whole = self.options.roles == "explicit", Pool(pool)
        try:
            used = named_roles(whole, self.options).members if explicit else candidates_of(whole, self.options)
        except ConfigError as error:
            return list(error.problems)
        models = [pool[i] for i in used]
        if not all(m.can("step") for m in models):
            return []  # that, too
        if apart := Needs(capabilities=frozenset(), same_engine=True).problems(models):
            return apart
        found = decoding.report(models)
        if found.relation == "different":
            remedy = "" if explicit else ", name them in candidates"
            return [
                f"{found.first_difference()}; choose models of one family{remedy}, or combine texts (majority_vote, say)"
            ]
        return []

    def cost(self, models: int, dev: int) -> Cost:
        ranking = (len(self.options.candidates) or models) * dev if self.options.roles == "dev" else 0
        searching = "search" in (self.options.alpha, self.options.beta)
        return Cost(fit=ranking + (len({0.0, *self.options.grid}) * dev if searching else 0), respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> ContrastSystem:
        if problems := self._problems(pool):
            raise CapabilityError(f"logit_contrastive: {problems[0]}")
        roles = await self._roles(pool, dev, context)
        names = pool.names
        context.note(
            base=names[roles.base], experts=[names[i] for i in roles.experts], antis=[names[i] for i in roles.antis]
        )
        strength = self.options.alpha if self.options.mode == "dexperts" else self.options.beta
        if strength == "search":
            strength = await self._search(pool, roles, dev, context)
        return ContrastSystem(pool, self.options, roles.base, roles.experts, roles.antis, float(strength))

    async def _roles(self, pool: Pool, dev: Sequence[Example], context: Context) -> Roles:
        if self.options.roles == "explicit":
            return named_roles(pool, self.options)
        if not dev:
            raise ConfigError("roles: dev needs dev examples to rank the models; use roles=explicit")
        ranked = candidates_of(pool, self.options)
        Roles.ranked([0.0] * len(ranked), self.options.k)  # refuse before anything is asked
        scores = (await context.evaluate([pool[i] for i in ranked], dev, _greedy(context))).means()
        return Roles.ranked(scores, self.options.k).within(ranked)

    async def _search(self, pool: Pool, roles: Roles, dev: Sequence[Example], context: Context) -> float:
        """Return the strength with the best mean dev score; equal scores stay with the smallest."""
        if not dev:
            raise ConfigError(f"{strength_name(self.options.mode)}: search needs dev examples; give a number")
        best: tuple[float, float] | None = None
        for value in sorted({0.0, *self.options.grid}):
            model = contrast_model(pool, self.options, roles, value)
            score = (await context.evaluate([model], dev, _greedy(context), label=f"strength {value:g}")).means()[0]
            context.note(strength=value, score=score)
            if best is None or score > best[0]:
                best = (score, value)
        assert best is not None  # 0 is always tried
        return best[1]


def _greedy(context: Context) -> Sampling:
    """Decode greedily while fitting, so that roles do not depend on luck."""
    return attrs.evolve(context.sampling, temperature=0.0)
