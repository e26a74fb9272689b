"""What method checks are tried on: the plan of a test, and the models that serve a method."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import attrs

from moco_core.data import Metric
from moco_core.methods import Method, System
from moco_core.models import CAPABILITIES, Needs
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.types import Example, Question, Sampling, canonical
from moco_toolkit_authoring.draws import Draws, seeds_watched
from moco_toolkit_authoring.harness import Outcome, PoolLike, as_pool, run_method
from moco_toolkit_authoring.scripted import SCRIPTED_CAPABILITIES, Faults, Script, ScriptedEngine, ScriptedPool
from moco_toolkit_authoring.suite import Case, NotApplicable
from moco_toolkit_authoring.toy import example_questions, examples, fallible

__all__ = ["MethodCase", "MethodPlan"]


@attrs.frozen(kw_only=True)
class MethodPlan:
    """What method checks work with.

    ``pool`` makes the models: by default scripted ones if they can do what the method needs, else those of the ``tiny``
    pool if it is installed. ``script`` is what scripted models say. ``identical_is_single`` states that copies of one
    model, decoded greedily, give that model's own reply.
    """

    pool: Callable[[], PoolLike] | None = None
    script: Script = fallible
    dev: Sequence[Example] = attrs.field(factory=lambda: examples(6, prefix="d"))
    questions: Sequence[Question] = attrs.field(factory=lambda: example_questions(4))
    metric: Metric[Any] | None = None
    sampling: Sampling = Sampling(temperature=0.7, max_new_tokens=64)
    identical_is_single: bool = False


@attrs.define(eq=False)
class MethodCase(Case):
    """A method with one setting, and the models it is tried on."""

    plan: MethodPlan

    def method(self) -> Method[Any]:
        method: Method[Any] = self.make()
        return method

    def pool(self, *, script: Script | None = None, faults: Faults | None = None, size: int | None = None) -> PoolLike:
        """Return fresh models that serve the method. NotApplicable if there are none, or if they cannot be scripted."""
        needs = self.method().needs()
        special = script is not None or faults is not None
        if self.plan.pool is not None:
            source = self.plan.pool()
            if special:
                return _rescripted(source, script, faults)
            return source if size is None else list(as_pool(source))[:size]
        if needs.declared <= SCRIPTED_CAPABILITIES or not needs.declared <= set(CAPABILITIES):
            return _scripted(needs, script or self.plan.script, faults or Faults(), size)
        if special:
            raise NotApplicable("models that can be stepped, merged or trained cannot be scripted")
        return _tiny(self, needs, size)

    def run(self, method: Method[Any] | None = None, **keywords: Any) -> Outcome:
        """Fit and ask, one question at a time unless told otherwise."""
        settings: dict[str, Any] = {
            "dev": self.plan.dev,
            "questions": self.plan.questions,
            "metric": self.plan.metric,
            "sampling": self.plan.sampling,
            "in_flight": 1,
        }
        settings.update(keywords)
        pool = settings.pop("pool", None)
        return run_method(method or self.method(), self.pool() if pool is None else pool, **settings)

    def base(self) -> Outcome:
        """What an undisturbed run gives, computed once."""
        outcome: Outcome = self.once("base", lambda: self.run(pool=_telling(self.pool())))
        return outcome

    def watched(self, seed: int) -> tuple[Outcome, Draws]:
        """What another run gives, computed once for a seed, and the seeds that the method's code draws with meanwhile."""

        def watch() -> tuple[Outcome, Draws]:
            with seeds_watched(self.cls.__module__.partition(".")[0]) as draws:
                return self.run(seed=seed), draws

        self.base()  # imports what is only imported where it is used
        found: tuple[Outcome, Draws] = self.once(("watched", seed), watch)
        return found

    def fitted_twice(self) -> tuple[Outcome, Outcome, int]:
        """One instance, fitted and asked twice on one cache; and how often its second fit had an engine do anything."""
        found: tuple[Outcome, Outcome, int] = self.once("twice", self._fit_twice)
        return found

    def _fit_twice(self) -> tuple[Outcome, Outcome, int]:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            cache = stack.enter_context(contextlib.closing(Cache(folder / "calls.sqlite")))
            method, pool, work = self.method(), as_pool(self.pool()), list[int]()
            first = self.run(method, cache=cache)
            watched = [
                stack.enter_context(mock.patch.object(engine, name, wraps=getattr(engine, name)))
                for engine, name in itertools.product(pool.engines, ("serve", "submit", "train"))
            ]

            def count(system: System) -> None:
                work.append(sum(w.call_count for w in watched))

            again = self.run(method, pool=pool, cache=cache, after_fit=count)
        return first, again, work[0]

    def tell(self) -> str:
        outcome = self.base()
        return canonical([outcome.state, {k: [r.text, r.meta] for k, r in outcome.replies.items()}])


def _scripted(needs: Needs, script: Script, faults: Faults, size: int | None) -> PoolLike:
    count = size if size is not None else max(needs.min_models, min(3, needs.max_models or 3))
    names = [f"m{i}" for i in range(count)]
    fields = {name: {"adapter": needs.adapters} for name in names}
    return ScriptedPool(dict.fromkeys(names, script), faults=faults, fields=fields)


def _telling(source: PoolLike) -> PoolLike:
    pool = as_pool(source)
    for model in pool:
        if isinstance(model.engine, ScriptedEngine):
            model.engine.tells = True
    return pool


def _rescripted(source: PoolLike, script: Script | None, faults: Faults | None) -> PoolLike:
    pool = as_pool(source)
    for model in pool:
        if not isinstance(model.engine, ScriptedEngine):
            raise NotApplicable("the models of this test cannot be scripted")
        if script is not None:
            model.engine.scripts[model.name] = script
        if faults is not None:
            model.engine.faults = faults
    return pool


def _tiny(case: MethodCase, needs: Needs, size: int | None) -> PoolLike:
    names = case.catalogue.able("pool", "default-pool")
    if not names:
        missing = ", ".join(sorted(needs.declared - SCRIPTED_CAPABILITIES))
        raise NotApplicable(f"no models that can {missing}; install a pool with the keyword default-pool, or give pool=")
    source = case.catalogue.load("pool", names[0])
    models = list(source(build(source.Options, {}, plugins=case.catalogue)).models())
    largest = min(len(models), needs.max_models or len(models), 3 if needs.min_models <= 3 else needs.min_models)
    for count in [size] if size is not None else range(largest, needs.min_models - 1, -1):
        for chosen in itertools.combinations(models, count):
            if not needs.problems(chosen):
                return list(chosen)
    raise NotApplicable(f"the pool {names[0]} has no models that serve this method; give pool=")
