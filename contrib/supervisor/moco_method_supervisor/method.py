"""A method around any method: a supervisor watches the members, and those it does not trust are left out or count for less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import attrs

from moco_core import ConfigError, Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, Sampling, System
from moco_core.converters import strings
from moco_method_supervisor.options import Options
from moco_method_supervisor.trust import Table, find_bad, suspects, trust_in
from moco_method_supervisor.watching import Replaced, watch
from moco_toolkit_voting import Weighable

__all__ = ["Supervisor", "SupervisorSystem"]


@attrs.frozen(eq=False, slots=False)
class SupervisorSystem(System):
    """The supervised system, the members it was fitted on, by name, everybody's trust on dev, where it was measured, and the
    weights of bad members that were kept.
    """

    inner: System
    kept: tuple[str, ...] = attrs.field(converter=strings)
    trust: Mapping[str, float]
    weights: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def model(self) -> Model | None:
        """The supervised system's one model, where no single reply of it is replaced."""
        return None if self.options.on_questions or self.weights else self.inner.model

    async def respond(self, question: Question, context: Context) -> Reply:
        options: Options = self.options
        told: dict[str, Any] = {"dropped": [name for name in self.pool.names if name not in self.kept]}
        watched = _watched([self.pool.named(name) for name in self.kept], self.pool, options)
        trust, weights = (
            dict[int, float](),
            {i: self.weights[m.name] for i, m in enumerate(watched) if m.name in self.weights},
        )
        if options.on_questions and len(watched) > 1:
            table = await watch(watched, question, _supervisor(options, self.pool), options.by, context)
            trust = {} if table is None else trust_in([table], range(len(watched)))
            for i, share in suspects(trust, options.ratio).items():
                weights[i] = min(weights.get(i, 1.0), options.weight_of(share))
            told["trust"] = {watched[i].name: t for i, t in trust.items()}
        counted = {watched[i].name: w for i, w in weights.items() if w > 0} if isinstance(self.inner, Weighable) else {}
        silent = [
            i for i, w in weights.items() if watched[i].name not in counted and not self._stands(watched[i], w, context)
        ]
        if options.action == "weight":
            told["weights"] = {watched[i].name: w for i, w in weights.items()}
        if "trust" in told or "weights" in told:
            told["replaced"] = [watched[i].name for i in silent]
        view = context
        if silent:
            writer = max(
                range(len(watched)),
                key=lambda i: (weights.get(i, 1.0), trust.get(i, 0.0), self.trust.get(watched[i].name, 0.0), -i),
            )
            told["by"] = watched[writer].name
            view = cast(Context, Replaced(context, {watched[i].name: watched[writer] for i in silent}))
        if counted:
            assert isinstance(self.inner, Weighable)
            reply = await self.inner.respond_weighed(question, view, counted)
        else:
            reply = await self.inner.respond(question, view)
        return attrs.evolve(reply, meta={**reply.meta, "supervisor": told})

    def _stands(self, member: Model, weight: float, context: Context) -> bool:
        """Return whether this is one of the questions, a share of ``weight``, on which a bad member's replies stand."""
        return context.rng("supervisor", "stands", self.options.seed, member.name).random() < weight

    def save_files(self, folder: Path) -> None:
        self.inner.save_files(folder)


class Supervisor(Method[Options]):
    """Any method under a supervisor that drops members whose replies others, a judge or a reward model distrust."""

    Options = Options
    system = SupervisorSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Supervisor"

    @property
    def inner(self) -> Method[Any]:
        method: Method[Any] = self.options.method.instance
        return method

    def needs(self) -> Needs:
        needs = self.inner.needs()
        more = {"reward"} if self.options.by == "reward" else set()
        return attrs.evolve(
            needs,
            capabilities=needs.capabilities | {"generate"},
            optional=needs.optional | more,
            check=lambda pool: [*(needs.check(pool) if needs.check else ()), *self._problems(pool)],
        )

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options = self.options
        if options.action == "weight" and options.weight != 0 and not _has_place_for_weights(self.inner):
            return [
                f"action: {options.method.name} works on its members' tokens, weights or training, of which no share can be "
                "left out; choose drop"
            ]
        try:
            supervisor = _supervisor(options, Pool(pool))
        except ConfigError as error:
            return list(error.problems)
        capability = "reward" if self.options.by == "reward" else "generate"
        if supervisor is None or supervisor.can(capability):
            return []
        return [
            f"model: {supervisor.name!r} cannot supervise by {self.options.by} (capability {capability!r}); name another"
        ]

    def cost(self, models: int, dev: int) -> Cost:
        return self._with_watch(self.inner.cost(models, dev), models, dev)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        return self._with_watch(self.inner.cost_on(pool, dev, sampling), len(pool), dev)

    def _with_watch(self, cost: Cost, models: int, dev: int) -> Cost:
        """Every member's reply, and what is asked about it; a method that asks the same shares the replies."""
        watch_calls = models * (2 if self.options.asks else 1)
        fit = cost.fit + (watch_calls * dev if self.options.on != "question" else 0)
        respond = cost.respond + (watch_calls if self.options.on_questions else 0)
        return attrs.evolve(cost, fit=fit, respond=respond)

    def learns(self) -> bool:
        """Return whether the method learns, or the supervisor does: it reads references for scores alone."""
        return self.options.by == "score" or self.inner.learns()

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> SupervisorSystem:
        options = self.options
        kept, trust, weights = pool.names, dict[str, float](), dict[str, float]()
        if options.on != "question" and not dev:
            context.warn("supervisor: members are watched on dev examples and there are none; nobody is dropped")
        elif options.on != "question":
            bad, trust = await self._judge(pool, dev, context)
            kept = tuple(name for name in pool.names if bad.get(name, 1.0) > 0)
            weights = {name: weight for name, weight in bad.items() if weight > 0}
            told = {"weights": bad} if options.action == "weight" else {}
            dropped = [name for name in pool.names if name not in kept]
            context.note(supervisor=options.by, trust=trust, dropped=dropped, **told)
        inner = await self.inner.fit(_members(pool, kept), dev, context)
        return SupervisorSystem(pool, options, inner, kept, trust, weights)

    async def _judge(
        self, pool: Pool, dev: Sequence[Example], context: Context
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return the weights of the bad members, 0 for those who go, and everybody's trust."""
        watched = _watched(pool, pool, self.options)
        tables = await self._tables(watched, pool, dev, context)
        names = [model.name for model in watched]

        def weighed(bad: Mapping[int, float]) -> dict[str, float]:
            return {names[i]: self.options.weight_of(share) for i, share in sorted(bad.items())}

        def able(bad: Mapping[int, float]) -> bool:
            weights = weighed(bad)
            rest = _members(pool, [name for name in pool.names if weights.get(name, 1.0) > 0])
            return len(rest) > 0 and not self.inner.needs().problems(rest)

        bad, trust = find_bad(tables, range(len(watched)), self.options.ratio, able)
        return weighed(bad), {names[i]: value for i, value in sorted(trust.items())}

    async def _tables(
        self, watched: Sequence[Model], pool: Pool, dev: Sequence[Example], context: Context
    ) -> list[Table]:
        """Return how the members' replies to every dev question stood up; questions that all of them failed are left out."""
        if self.options.by == "score":
            evaluation = await context.evaluate(watched, dev)
            return [
                [[score or 0.0] * len(watched) for score in column] for column in zip(*evaluation.scores, strict=True)
            ]
        supervisor = _supervisor(self.options, pool)

        async def one(example: Example, scope: Context) -> Table | None:
            return await watch(watched, example.question, supervisor, self.options.by, scope)

        return [table for table in await context.each(dev, one, label="supervisor on dev") if table is not None]

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> System:
        inner = self.inner.restore(_members(pool, state["kept"]), state["inner"], folder)
        return super().restore(pool, {**state, "inner": inner}, folder)


def _has_place_for_weights(method: Method[Any]) -> bool:
    """Return whether a method counts its members' words as numbers, or asks them for replies and for nothing else.

    Trained members, and members with moved weights, are models of the method's own making that have other names.
    """
    if issubclass(getattr(method, "system", object), Weighable):
        return True
    needs = method.needs()
    beyond = {"step", "weights"} & (needs.capabilities | needs.optional) or "train" in needs.capabilities
    return method.level in ("api", "text") and not beyond


def _members(pool: Pool, names: Sequence[str]) -> Pool:
    """Return the pool itself where everybody stays, else those of the given names."""
    return pool if tuple(names) == pool.names else Pool(pool.named(name, "supervisor") for name in names)


def _supervisor(options: Options, pool: Pool) -> Model | None:
    """Return the model that is asked about replies. Raises ConfigError if there is no such model."""
    if not options.asks:
        return None
    return (pool if options.pool is None else options.pool.instance.pool).named(options.model, "model")


def _watched(members: Sequence[Model], pool: Pool, options: Options) -> list[Model]:
    """Return who is watched: all but a member of the pool that is the supervisor itself."""
    own = _supervisor(options, pool) if options.pool is None else None
    return [model for model in members if own is None or model.name != own.name]
