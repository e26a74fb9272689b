"""Let the models' weights move as a particle swarm towards the best dev score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import attrs

from moco_core import hookimpl
from moco_core.context import Context
from moco_core.methods import Cost, Method
from moco_core.models import Model, Needs, Pool
from moco_core.options import option
from moco_core.types import Example, Question, Reply
from moco_toolkit_merging import (
    Linear,
    Merge,
    MergedSystem,
    Search,
    finish,
    prepare,
    saved_merge,
    share_base,
    weight_needs,
)
from moco_toolkit_swarm import Swarm, SwarmSettings, enlarge, one_hot
from moco_toolkit_voting import vote

__all__ = ["ModelSwarms", "Options", "moco_method"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of model_swarms."""

    inertia: float = option(0.2, ge=0, le=1, help="phi_v: weight of the velocity", paper="grid 0.1 .. 0.3")
    cognitive_coeff: float = option(
        0.3, ge=0, le=1, help="phi_p: towards the particle's own best", paper="grid 0.1 .. 0.5"
    )
    social_coeff: float = option(0.4, ge=0, le=1, help="phi_g: towards the swarm's best", paper="grid 0.2 .. 0.6")
    repel_coeff: float = option(0.05, ge=0, le=1, help="phi_w: away from the worst", paper="grid 0.01, 0.05, 0.1")
    step_length: float = option(0.5, gt=0, le=1, help="lambda of the first move", paper="grid 0.5 .. 1")
    step_length_factor: float = option(0.95, gt=0, le=1, help="decay of lambda per iteration", paper="0.95")
    minimum_step_length: float = option(0.1, gt=0, help="lambda never falls below this", paper="0.1")
    weight_randomness: bool = option(True, help="draw four numbers per particle and iteration", paper="true")
    starting_velocity: Literal["random", "zero", "best"] = option(
        "random", help="velocity before the first move: towards another expert, none, towards the best", paper="random"
    )
    population: int | None = option(
        None, ge=2, help="particles; more than the experts adds crossed ones", paper="20 of 10"
    )
    patience: int = option(5, ge=1, help="stop after this many iterations without a better best", paper="10")
    restart_patience: int = option(3, ge=1, help="iterations before a stuck particle restarts from its best", paper="5")
    max_iterations: int = option(10, ge=1, help="moves at most", paper="50")
    adapter_combine: Literal["factors", "exact"] = option(
        "factors", help="positions of LoRA adapters: their factors, or their updates", paper="factors"
    )
    ensemble_top_k: int = option(1, ge=1, help="answer by majority vote of the k best personal bests", paper="1")
    dev_limit: int | None = option(None, ge=1, help="dev questions per evaluation; none: all", paper="200")
    seed: int = option(0, help="added to the run's seed, for everything drawn", paper="42")
    export: str = option("", help="new folder for the final model as an ordinary checkpoint; empty writes nothing")


def _merges(saved: Sequence[Merge | Mapping[str, Any]]) -> tuple[Merge, ...]:
    return tuple(saved_merge(m) for m in saved)


@attrs.frozen(eq=False, slots=False)
class SwarmSystem(MergedSystem):
    """The best point of the swarm, and ``members``, the next best ones, which vote with it."""

    members: tuple[Merge, ...] = attrs.field(default=(), converter=_merges)

    @property
    def model(self) -> Model | None:
        return None if self.members else self.merged

    @cached_property
    def voters(self) -> tuple[Model, ...]:
        """The points that vote, best first."""
        others = (m.model(self.pool, f"{self.name} {place}") for place, m in enumerate(self.members, 2))
        return (self.merged, *others)

    async def respond(self, question: Question, context: Context) -> Reply:
        if not self.members:
            return await super().respond(question, context)
        replies = await context.gather(context.generate(m, question) for m in self.voters)
        keys = [context.read(question, r.text).key for r in replies]
        outcome = vote(keys)  # ties go to the better point: they stand in order of their dev scores
        chosen = 0 if outcome is None else outcome.voter
        return Reply.of(replies[chosen], votes=keys, voter=chosen)

    def state(self) -> Mapping[str, Any]:
        return {**super().state(), "members": [m.dump() for m in self.members]}


class ModelSwarms(Method[Options]):
    """Model Swarms, Feng et al. 2024 (arXiv 2410.11163).

    A position is kept as coefficients over the experts, not as tensors: every position lies in their affine span, so the
    search runs in R^N without rounding and only an evaluation needs a merge.
    """

    Options = Options
    system = SwarmSystem
    level = "weight"
    title = "Model Swarms"
    paper = "https://arxiv.org/abs/2410.11163"

    def needs(self) -> Needs:
        return weight_needs(min_models=2, export=self.options.export, composition=self.options.adapter_combine)

    def cost(self, models: int, dev: int) -> Cost:
        dev = min(dev, self.options.dev_limit or dev)
        particles = max(models, self.options.population or models)
        return Cost(fit=dev * particles * (self.options.max_iterations + 1), respond=self.options.ensemble_top_k)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SwarmSystem:
        options, models = self.options, list(pool)
        await prepare(context, models, options.export)
        if len(models) < 4:
            context.warn(
                f"model_swarms: {len(models)} experts span a space of {len(models) - 1} dimensions; use 4 or more"
            )
        search = Search(pool, dev, context, limit=options.dev_limit, total=round(self.cost(len(models), 1).fit))
        swarm = self._swarm(len(models), context)
        try:
            while proposals := swarm.ask():
                told = []
                for p in proposals:
                    label = f"particle {p.iteration}.{p.particle}"
                    merge = self._merge(p.position, models)
                    told.append(await search.score(merge, label, coefficients=list(p.position), step_length=swarm.step))
                swarm.tell(told)
        finally:
            search.close()
        ranked = sorted(range(len(swarm.personal_bests)), key=lambda i: (-swarm.personal_bests[i][1], i))
        members, seen = [], set()
        for position in (swarm.best, *(swarm.personal_bests[i][0] for i in ranked)):
            if position not in seen:  # several particles may have stood at one point
                seen.add(position)
                members.append(self._merge(position, models))
        facts = {
            "dev_score": swarm.best_score,
            "coefficients": dict(zip((m.name for m in models), swarm.best, strict=True)),
            "iterations": swarm.iteration,
            "restarts": [[r.iteration, *r.restarted] for r in swarm.trajectory if r.restarted],
            "trace": search.trace,
        }
        best, *others = members
        system = SwarmSystem(
            pool, options, name="swarm", merge=best, facts=facts, members=others[: options.ensemble_top_k - 1]
        )
        return await finish(system, "model_swarms")

    def _swarm(self, experts: int, context: Context) -> Swarm[tuple[float, ...]]:
        o = self.options
        settings = SwarmSettings(
            inertia=o.inertia,
            cognitive_coeff=o.cognitive_coeff,
            social_coeff=o.social_coeff,
            repel_coeff=o.repel_coeff,
            step_length=o.step_length,
            step_length_factor=o.step_length_factor,
            minimum_step_length=o.minimum_step_length,
            weight_randomness=o.weight_randomness,
            starting_velocity=o.starting_velocity,
            patience=o.patience,
            restart_patience=o.restart_patience,
            max_iterations=o.max_iterations,
            seed=context.rng("model_swarms", "swarm", o.seed).getrandbits(32),
        )
        rng = context.rng("model_swarms", "population", o.seed)
        return Swarm(settings, enlarge(one_hot(experts), max(experts, o.population or experts), rng))

    def _merge(self, position: Sequence[float], models: Sequence[Model]) -> Merge:
        if share_base(models):
            return Merge.adapters(position, models, self.options.adapter_combine)
        return Merge.weights(Linear(coefficients=tuple(position)), models)


@hookimpl
def moco_method() -> type[ModelSwarms]:
    return ModelSwarms
