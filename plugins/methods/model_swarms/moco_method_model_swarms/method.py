"""Collaborative search for better weights.

Feng et al., "Model Swarms: Collaborative Search to Adapt LLM Experts via Swarm Intelligence", arXiv 2410.11163 (ICML 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import attrs

from moco_core import Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply
from moco_method_model_swarms.options import Options
from moco_toolkit_merging import (
    Linear,
    Merge,
    MergedSystem,
    Search,
    finish,
    prepare,
    saved_merges,
    share_base,
    weight_needs,
)
from moco_toolkit_swarm import Swarm, SwarmSettings, enlarge, one_hot
from moco_toolkit_voting import vote

__all__ = ["ModelSwarms", "SwarmSystem"]


@attrs.frozen(eq=False, slots=False)
class SwarmSystem(MergedSystem):
    """The best point of the swarm, and ``members``, the next best ones, which vote with it."""

    members: tuple[Merge, ...] = attrs.field(default=(), converter=saved_merges)

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
    """Let the models' weights move as a particle swarm towards the best dev score.

    A position is kept as coefficients over the experts, not as tensors: every position lies in their affine span, so the
    search runs in R^N without rounding and only an evaluation needs a merge.
    """

    Options = Options
    system = SwarmSystem
    level: ClassVar[Literal["weight"]] = "weight"
    title: ClassVar[str] = "Model Swarms"
    paper: ClassVar[str] = "arXiv 2410.11163"

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
                    told.append(await search.score(merge, label, coefficients=list(p.position), step_length=swarm.moved_by))
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
