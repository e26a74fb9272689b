"""Contrastive decoding: add what good models say to a base model's scores, subtract what bad ones say.

DExperts (Liu et al. 2021, arXiv 2105.03023), proxy tuning (Liu et al. 2024, arXiv 2401.08565), contrastive decoding (Li et al.
2022, arXiv 2210.15097; O'Brien and Lewis 2023, arXiv 2309.09117), and the form with several experts ranked on dev.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, System, hookimpl
from moco_core.converters import ints
from moco_core.errors import CapabilityError, ConfigError
from moco_core.options import option
from moco_core.types import Sampling

__all__ = ["LogitContrastive", "LogitContrastiveOptions", "Roles"]

Strength = float | Literal["search"]


@attrs.frozen(kw_only=True)
class LogitContrastiveOptions:
    """Which formula, who plays which role, and how strongly."""

    mode: Literal["dexperts", "cd", "cd_beta"] = option(
        "dexperts",
        help="dexperts: base + alpha (experts - anti-experts); cd: log p_expert - log p_anti; cd_beta: (1+beta) expert - "
        "beta anti-expert",
    )
    roles: Literal["dev", "explicit"] = option(
        "dev", help="dev: rank the models by dev score; explicit: take base, experts and anti_experts", paper="explicit"
    )
    k: int = option(
        1, ge=1, help="experts, and as many anti-experts, for roles=dev; at most half the candidates", paper="1"
    )
    candidates: tuple[str | int, ...] = option(
        (), help="models that roles=dev ranks, by name or index, with one tokenizer; the whole pool if none are named"
    )
    base: str | int | None = option(
        None, help="base model, by name or index (roles=explicit; the first expert if none)"
    )
    experts: tuple[str | int, ...] = option((), help="expert models, by name or index (roles=explicit)")
    anti_experts: tuple[str | int, ...] = option((), help="anti-expert models, by name or index (roles=explicit)")
    alpha: Strength = option(
        1.0, ge=0, help="strength of mode=dexperts, or search", paper="1.0 (proxy tuning), 2.0 (detoxification)"
    )
    beta: Strength = option(0.5, ge=0, help="strength of mode=cd_beta, or search", paper="0.5")
    grid: tuple[float, ...] = option(
        (0.0, 0.25, 0.5, 1.0, 1.5, 2.0), ge=0, help="strengths tried by search; 0, the base alone, is always among them"
    )
    plausibility: float | None = option(
        None,
        ge=0,
        le=1,
        help="keep tokens with at least this share of the reference model's top probability; 0 is off; none: 0.1, but 0 for "
        "mode=dexperts with explicit roles",
        paper="0.1 (CD); none (DExperts, proxy tuning)",
    )
    amateur_temperature: float = option(
        1.0, gt=0, help="temperature of the anti-expert in mode=cd", paper="0.5 (GPT-2), 1.0 (OPT)"
    )

    def __attrs_post_init__(self) -> None:
        named = self.base is not None or self.experts or self.anti_experts
        if self.roles == "dev" and named:
            raise ConfigError("roles: base, experts and anti_experts need roles=explicit")
        if self.roles == "explicit" and self.candidates:
            raise ConfigError("candidates: they are ranked by roles=dev alone; drop them")
        if self.candidates and len(self.candidates) < 2 * self.k:
            raise ConfigError(
                f"k: {self.k} experts and {self.k} anti-experts need {2 * self.k} candidates, {len(self.candidates)} are "
                "named; lower k or name more"
            )
        if self.roles == "explicit" and not (self.experts and self.anti_experts):
            raise ConfigError("roles: explicit needs experts and anti_experts")
        if self.alpha == "search" and self.mode != "dexperts":
            raise ConfigError(
                f"alpha: search belongs to mode=dexperts; mode={self.mode} has " + _strength_name(self.mode)
            )
        if self.beta == "search" and self.mode != "cd_beta":
            raise ConfigError(
                f"beta: search belongs to mode=cd_beta; mode={self.mode} has " + _strength_name(self.mode)
            )

    def mask(self) -> float:
        """The plausibility threshold in force."""
        if self.plausibility is not None:
            return self.plausibility
        return 0.0 if self.mode == "dexperts" and self.roles == "explicit" else 0.1


def _strength_name(mode: str) -> str:
    return {"dexperts": "alpha", "cd_beta": "beta"}.get(mode, "no strength")


@attrs.frozen
class Roles:
    """Indices into the pool."""

    base: int
    experts: tuple[int, ...] = attrs.field(converter=ints)
    antis: tuple[int, ...] = attrs.field(converter=ints)

    @classmethod
    def ranked(cls, scores: Sequence[float], k: int) -> Roles:
        """Rank by descending score, equal scores by index: the first k are experts, the last k anti-experts.

        Raises ConfigError if the two sets would overlap.
        """
        if 2 * k > len(scores):
            raise ConfigError(
                f"k: {k} experts and {k} anti-experts need {2 * k} models, the pool has {len(scores)}; lower k"
            )
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
        return cls(order[0], tuple(order[:k]), tuple(order[len(order) - k :]))

    def within(self, indices: Sequence[int]) -> Roles:
        """Return roles among ``indices`` as roles of the pool that these index."""
        return Roles(indices[self.base], [indices[i] for i in self.experts], [indices[i] for i in self.antis])


class LogitContrastive(Method[LogitContrastiveOptions]):
    """Contrast good models with bad ones at every token."""

    Options = LogitContrastiveOptions
    level: ClassVar[Literal["logit"]] = "logit"
    title: ClassVar[str] = "Contrastive decoding"
    paper: ClassVar[str] = "arXiv 2210.15097, 2105.03023, 2401.08565, 2309.09117"

    def needs(self) -> Needs:
        return Needs(capabilities=frozenset({"generate", "step"}), min_models=self._least, check=self._check)

    @property
    def _least(self) -> int:
        """How many models a pool must have: enough for all roles, and for those given by index."""
        o = self.options
        named = (o.base, *o.experts, *o.anti_experts, *o.candidates)
        return max(2 * o.k if o.roles == "dev" else 2, *(i + 1 for i in named if isinstance(i, int)), 2)

    def _check(self, pool: Sequence[Model]) -> list[str]:
        if len(pool) < self._least:
            return []  # that there are too few is said already
        try:
            explicit = self.options.roles == "explicit"
            used = [pool[i] for i in (self._named(pool) if explicit else self._candidates(pool))]
        except ConfigError as error:
            return list(error.problems)
        if not all(m.can("step") for m in used):
            return []  # that, too
        found = decoding.report(used)
        if found.relation == "different":
            remedy = "" if explicit else ", name them in candidates"
            return [
                f"{found.first_difference()}; choose models of one family{remedy}, or combine texts (majority_vote, say)"
            ]
        return []

    def _candidates(self, pool: Sequence[Model]) -> list[int]:
        """Return the indices of the models that are ranked. Raises ConfigError if one is not there, or named twice."""
        found = [_index(Pool(pool), n, "candidates") for n in self.options.candidates] or list(range(len(pool)))
        if len(set(found)) < len(found):
            raise ConfigError("candidates: a model is named twice; name each once")
        return found

    def _named(self, pool: Sequence[Model]) -> list[int]:
        """Return the indices of base, experts and anti-experts, in this order."""
        whole = Pool(pool)
        o = self.options
        experts = [_index(whole, n, "experts") for n in o.experts]
        antis = [_index(whole, n, "anti_experts") for n in o.anti_experts]
        base = _index(whole, o.base, "base") if o.base is not None else experts[0]
        return [base, *experts, *antis]

    def cost(self, models: int, dev: int) -> Cost:
        ranking = (len(self.options.candidates) or models) * dev if self.options.roles == "dev" else 0
        searching = "search" in (self.options.alpha, self.options.beta)
        return Cost(fit=ranking + (len({0.0, *self.options.grid}) * dev if searching else 0), respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> ContrastSystem:
        problems = self._check(pool)
        if problems:
            raise CapabilityError(f"logit_contrastive: {problems[0]}")
        o = self.options
        if o.roles == "explicit":
            base, *rest = self._named(pool)
            roles = Roles(base, rest[: len(o.experts)], rest[len(o.experts) :])
        else:
            if not dev:
                raise ConfigError("roles: dev needs dev examples to rank the models; use roles=explicit")
            ranked = self._candidates(pool)
            Roles.ranked([0.0] * len(ranked), o.k)  # refuse before anything is asked
            scores = (await context.evaluate([pool[i] for i in ranked], dev, _greedy(context))).means()
            roles = Roles.ranked(scores, o.k).within(ranked)
        names = pool.names
        context.note(
            base=names[roles.base], experts=[names[i] for i in roles.experts], antis=[names[i] for i in roles.antis]
        )
        strength = o.alpha if o.mode == "dexperts" else o.beta
        if strength == "search":
            if not dev:
                raise ConfigError(f"{_strength_name(o.mode)}: search needs dev examples; give a number")
            strength = await self._search(pool, roles, dev, context)
        return ContrastSystem(pool, o, roles, float(strength))

    async def _search(self, pool: Pool, roles: Roles, dev: Sequence[Example], context: Context) -> float:
        best: tuple[float, float] | None = None
        for value in sorted({0.0, *self.options.grid}):
            model = contrast_model(pool, self.options, roles, value)
            score = (await context.evaluate([model], dev, _greedy(context), label=f"strength {value:g}")).means()[0]
            context.note(strength=value, score=score)
            if best is None or score > best[0]:  # ascending, so that ties stay with the smallest strength
                best = (score, value)
        assert best is not None
        return best[1]

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> ContrastSystem:
        roles = Roles(state["base"], state["experts"], state["antis"])
        return ContrastSystem(pool, self.options, roles, state["strength"])


class ContrastSystem(System):
    """The contrasted model."""

    def __init__(self, pool: Pool, options: LogitContrastiveOptions, roles: Roles, strength: float) -> None:
        self.pool = pool
        self.roles = roles
        self.strength = strength
        self._model = contrast_model(pool, options, roles, strength)

    @property
    def model(self) -> Model:
        """The joint model."""
        return self._model

    async def respond(self, question: Question, context: Context) -> Reply:
        generation = await context.generate(self.model, question)
        return Reply.of(generation, share=dict(generation.meta.get("share", {})))

    def state(self) -> Mapping[str, Any]:
        roles = self.roles
        return {
            "base": roles.base,
            "experts": list(roles.experts),
            "antis": list(roles.antis),
            "strength": self.strength,
        }


def contrast_model(pool: Pool, options: LogitContrastiveOptions, roles: Roles, strength: float) -> Model:
    """Return the derived model. A model that plays two roles is a member once."""
    members = list(dict.fromkeys([roles.base, *roles.experts, *roles.antis]))
    if options.mode != "dexperts" and roles.base not in roles.experts + roles.antis:
        members.remove(roles.base)  # contrastive decoding has no base beside its expert
    where = {i: n for n, i in enumerate(members)}
    experts = tuple(where[i] for i in roles.experts)
    base = where.get(roles.base, experts[0])
    contrast = decoding.Contrast(
        mode=options.mode,
        members=len(members),
        base=base,
        experts=experts,
        antis=tuple(where[i] for i in roles.antis),
        alpha=strength if options.mode == "dexperts" else 1.0,
        beta=strength if options.mode == "cd_beta" else 0.5,
        plausibility=options.mask(),
        amateur_temperature=options.amateur_temperature,
    )
    models = [pool[i] for i in members]
    # an untuned base has no end of turn of its own: its tuned experts end the reply too
    recipe = decoding.JointRecipe.of(contrast, models, stops_with=tuple(sorted({base, *experts})))
    return pool.derive(f"contrast-{recipe.fingerprint[:8]}", recipe, models)


def _index(pool: Pool, name: str | int, where: str) -> int:
    return list(pool).index(pool.named(name, where))


def _greedy(context: Context) -> Sampling:
    """Decode greedily while fitting, so that roles do not depend on luck."""
    return attrs.evolve(context.sampling, temperature=0.0)


@hookimpl
def moco_method() -> type[LogitContrastive]:
    return LogitContrastive
