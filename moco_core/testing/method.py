"""Checks of methods: what a run relies on, tried on scripted models with questions nobody has seen."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.context import Context
from moco_core.data import Metric
from moco_core.errors import MocoError, UnknownPlugin
from moco_core.methods import Cost, Method, System
from moco_core.models import CAPABILITIES, Needs, Pool
from moco_core.options import NoOptions, build, plain
from moco_core.testing.harness import Outcome, PoolLike, as_pool, open_session, run_method
from moco_core.testing.kit import Case, Check, NotApplicable, check, require
from moco_core.testing.scripted import (
    SCRIPTED_CAPABILITIES,
    Faults,
    Said,
    Script,
    ScriptedCall,
    ScriptedEngine,
    ScriptedPool,
)
from moco_core.testing.toy import LastWord, example_questions, examples, fallible, unparsable
from moco_core.types import Example, Question, Reply, Sampling, canonical

__all__ = ["CHECKS", "MethodCase", "MethodPlan"]

_PATIENCE = 5.0  # seconds until a coroutine that should have moved is taken to hang


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
        outcome: Outcome = self.once("base", self.run)
        return outcome


def _scripted(needs: Needs, script: Script, faults: Faults, size: int | None) -> PoolLike:
    count = size if size is not None else max(needs.min_models, min(3, needs.max_models or 3))
    names = [f"m{i}" for i in range(count)]
    fields = {name: {"adapter": needs.adapters} for name in names}
    return ScriptedPool(dict.fromkeys(names, script), faults=faults, fields=fields)


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
    try:
        source = case.catalogue.load("pool", "tiny")
    except UnknownPlugin:
        missing = ", ".join(sorted(needs.declared - SCRIPTED_CAPABILITIES))
        raise NotApplicable(f"no models that can {missing}; pip install moco-pool-tiny, or give pool=") from None
    models = list(source(build(source.Options, {})).models())
    largest = min(len(models), needs.max_models or len(models), 3 if needs.min_models <= 3 else needs.min_models)
    for count in [size] if size is not None else range(largest, needs.min_models - 1, -1):
        for chosen in itertools.combinations(models, count):
            if not needs.problems(chosen):
                return list(chosen)
    raise NotApplicable("the tiny pool has no models that serve this method; give pool=")


def _same(one: Outcome, other: Outcome, what: str) -> None:
    """Fail with the first question whose reply differs."""
    require(set(one.replies) == set(other.replies), f"{what}: different questions were answered")
    for key, reply in one.replies.items():
        found = other.replies[key]
        require(reply.text == found.text, f"{what}: question {key!r} gets {found.text!r} instead of {reply.text!r}")
        require(canonical(reply.meta) == canonical(found.meta), f"{what}: question {key!r} gets another Reply.meta")


# ---------------------------------------------------------------- before anything is asked


@check(after=["entry_point_resolves", "options_have_defaults"])
def constructor_only_stores_options(case: MethodCase) -> None:
    """The constructor keeps the options it is given, as they are."""
    options = case.options()
    method = case.cls(options)
    require(method.options is options, "method.options is not the object the constructor was given")


@check(after=["entry_point_resolves", "options_have_defaults"])
def needs_are_well_formed(case: MethodCase) -> None:
    """needs() names known capabilities and possible pool sizes, cost() is not negative, level is one of the four."""
    method = case.method()
    needs, cost = method.needs(), method.cost(3, 10)
    unknown = sorted(needs.declared - set(CAPABILITIES))
    require(not unknown, f"needs() names unknown capabilities: {', '.join(unknown)}")
    require(needs.min_models >= 1, f"needs().min_models is {needs.min_models}")
    require(needs.max_models is None or needs.max_models >= needs.min_models, "needs().max_models < min_models")
    require(type(cost) is Cost and min(cost.fit, cost.respond) >= 0, f"cost() returned {cost!r}")
    require(case.cls.level in ("api", "text", "logit", "weight"), f"level is {case.cls.level!r}")
    require(case.cls.title.strip(), "title is empty")


@check(after=["needs_are_well_formed"])
def refuses_unfit_pools(case: MethodCase) -> None:
    """A pool that lacks a model or a capability is refused with a reason, before any call."""
    needs = case.method().needs()
    pool = as_pool(case.pool())
    require(not needs.problems(pool), f"a fit pool is refused: {'; '.join(needs.problems(pool))}")
    if needs.min_models > 1:
        few = list(pool)[: needs.min_models - 1]
        require(needs.problems(few), f"a pool of {len(few)} is not refused, min_models is {needs.min_models}")
    for capability in sorted(needs.capabilities):
        poor = [attrs.evolve(m, capabilities=m.capabilities - {capability}) for m in pool]
        require(needs.problems(poor), f"a pool without the capability {capability!r} is not refused")
    for model in pool:
        history = getattr(model.engine, "history", ())
        require(not history, "models were called while the pool was checked")


# ---------------------------------------------------------------- answering


@check(after=["needs_are_well_formed"])
def answers_every_question(case: MethodCase) -> None:
    """Fitted on a few examples, it answers every question with a Reply whose meta is JSON."""
    outcome = case.base()
    for key, error in outcome.errors.items():
        raise AssertionError(f"question {key!r} fails: {error}")
    for key, reply in outcome.replies.items():
        require(isinstance(reply, Reply), f"question {key!r} gets {type(reply).__name__}, not a Reply")
        try:
            canonical(reply.meta)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"Reply.meta of question {key!r} is not JSON: {error}") from None


@check(after=["answers_every_question"])
def same_seed_same_replies(case: MethodCase) -> None:
    """Two runs with one seed, in two instances, give the same replies."""
    _same(case.base(), case.run(), "a second run with the same seed")


@check(after=["same_seed_same_replies"])
def fit_is_idempotent(case: MethodCase) -> None:
    """One instance fitted twice gives equal systems."""
    method = case.method()
    first = case.run(method)
    _same(first, case.run(method), "after fitting the same instance again")


@check(after=["answers_every_question"])
def fit_changes_nothing(case: MethodCase) -> None:
    """Fitting leaves the method, its options, the pool and the examples as they were."""
    method, pool = case.method(), as_pool(case.pool())
    options, attributes = plain(method.options), set(vars(method))
    names, dev = pool.names, tuple(case.plan.dev)
    case.run(method, pool=pool, questions=[], dev=dev)
    require(plain(method.options) == options, "fit changed the options")
    added = sorted(set(vars(method)) - attributes)
    require(not added, f"fit left {', '.join(added)} on the method; what was learnt belongs to the system")
    require(pool.names == names, "fit changed the pool")


@check(after=["same_seed_same_replies"])
def saved_system_restores(case: MethodCase) -> None:
    """State and files restore, in a new instance, to a system with equal replies; nothing is pickled."""
    outcome = case.base()
    try:
        canonical(outcome.state)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"state() is not JSON data: {error}") from None
    pickled = [f for f in outcome.files if Path(f).suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib")]
    require(not pickled, f"save_files writes {', '.join(pickled)}; write safetensors or JSON")
    _same(outcome, case.run(reload_with=case.method()), "after saving and restoring")


@check(after=["same_seed_same_replies"])
def concurrency_changes_nothing(case: MethodCase) -> None:
    """Eight questions at once get the replies they get one at a time."""
    _same(case.base(), case.run(in_flight=8), "with 8 questions at once")


@check(after=["same_seed_same_replies"])
def order_changes_nothing(case: MethodCase) -> None:
    """Questions asked in another order get the same replies."""
    _same(case.base(), case.run(questions=list(reversed(case.plan.questions))), "in reverse order")


# ---------------------------------------------------------------- what was promised


@check(after=["answers_every_question"])
def uses_only_declared_capabilities(case: MethodCase) -> None:
    """It runs where only the capabilities that needs() declares are allowed."""
    outcome = case.run(allowed=case.method().needs().declared)
    for key, error in outcome.errors.items():
        raise AssertionError(f"question {key!r}: {error}")


@check(after=["answers_every_question"])
def smallest_pool_works(case: MethodCase) -> None:
    """It runs on as few models as needs() says."""
    count = case.method().needs().min_models
    outcome = case.run(pool=case.pool(size=count))
    for key, error in outcome.errors.items():
        raise AssertionError(f"with {count} models, question {key!r} fails: {error}")


@check(after=["answers_every_question"])
def cost_is_an_upper_bound(case: MethodCase) -> None:
    """Fitting and answering make at most the model calls that cost() predicts."""
    outcome, pool = case.base(), as_pool(case.pool())
    cost = case.method().cost(len(pool), len(case.plan.dev))
    fit = outcome.calls["fit"]
    require(fit <= cost.fit, f"fit made {fit} calls, cost() predicts {cost.fit:g}")
    for key, count in outcome.calls_per_question.items():
        require(count <= cost.respond, f"question {key!r} took {count} calls, cost() predicts {cost.respond:g}")


# ---------------------------------------------------------------- when things go wrong


@check(after=["answers_every_question"])
def unparsable_replies_are_handled(case: MethodCase) -> None:
    """Empty, broken and endless replies still end in a reply; fitting on them works or says in one line why not."""
    script = case.plan.script
    if not callable(script) and not isinstance(script, str):
        raise NotApplicable("the script is a fixed queue of replies")
    noisy = False

    def say(call: ScriptedCall) -> Said:
        if noisy:
            return unparsable(call)
        return script(call) if callable(script) else script

    def turn(system: System) -> None:
        nonlocal noisy
        noisy = True

    outcome = case.run(pool=case.pool(script=say), after_fit=turn)
    for key, error in outcome.errors.items():
        raise AssertionError(f"question {key!r} fails when replies are unreadable: {error}")
    for key, reply in outcome.replies.items():
        require(isinstance(reply.text, str), f"question {key!r} gets no text")
    with contextlib.suppress(MocoError):
        case.run(pool=case.pool(script=unparsable), questions=[])


@check(after=["same_seed_same_replies"])
def a_failing_call_loses_one_question(case: MethodCase) -> None:
    """When the calls of one question fail, the others get the replies they would have got."""
    target = case.plan.questions[len(case.plan.questions) // 2]
    faults = Faults(when=lambda call: target.prompt in call.transcript)
    pool = as_pool(case.pool(faults=faults))
    outcome = case.run(pool=pool)
    engine = pool[0].engine
    assert isinstance(engine, ScriptedEngine)
    if not any(target.prompt in call.transcript for call in engine.history):
        raise NotApplicable("no call shows a question's prompt")
    wanted = case.base()
    lost = [k for k in outcome.errors if k != target.id]
    require(not lost, f"the failure of question {target.id!r} also fails {', '.join(map(repr, lost))}")
    for key, reply in wanted.replies.items():
        if key != target.id:
            found = outcome.replies[key].text
            require(found == reply.text, f"the failure of question {target.id!r} changes the reply to {key!r}")


@check(after=["answers_every_question"])
def cancellation_leaves_no_task(case: MethodCase) -> None:
    """A question that is cancelled while models answer ends at once and leaves no task behind."""
    faults = Faults()
    pool = as_pool(case.pool(faults=faults))
    asyncio.run(_cancel(case, pool, faults))


async def _cancel(case: MethodCase, pool: Pool, faults: Faults) -> None:
    plan, question = case.plan, case.plan.questions[0]
    async with open_session(metric=plan.metric, sampling=plan.sampling) as session:
        system = await case.method().fit(pool, list(plan.dev), Context(session, phase="fit"))
        faults.hang = True
        task = asyncio.ensure_future(system.respond(question, Context(session, phase="respond", question=question)))
        try:
            engine = pool[0].engine
            assert isinstance(engine, ScriptedEngine)
            await _until(lambda: engine.hanging > 0 or task.done())
            if task.done():
                raise NotApplicable("it answers without a new call")
            task.cancel()
            await _until(task.done)
            require(task.done(), "respond goes on after it was cancelled")
            require(task.cancelled(), "respond swallows its cancellation")
            await asyncio.sleep(0.01)
            left = [
                t
                for t in asyncio.all_tasks() - {asyncio.current_task()}
                if not getattr(t.get_coro(), "__qualname__", "").startswith("Scheduler.")
            ]
            require(not left, f"{len(left)} tasks are left; use context.gather, which cancels what it started")
        finally:
            faults.hang = False
            task.cancel()


async def _until(condition: Callable[[], bool]) -> None:
    end = asyncio.get_running_loop().time() + _PATIENCE
    while not condition() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.001)


def _identical(case: MethodCase) -> bool:
    return case.plan.identical_is_single


@check(after=["answers_every_question"], applies=_identical)
def identical_models_equal_the_single_model(case: MethodCase) -> None:
    """Copies of one model, decoded greedily, give that model's own reply."""
    needs = case.method().needs()
    count = max(needs.min_models, min(3, needs.max_models or 3))
    greedy = attrs.evolve(case.plan.sampling, temperature=0.0)
    copies = ScriptedPool.copies(count, case.plan.script)
    outcome = case.run(pool=copies, sampling=greedy)
    metric = case.plan.metric or LastWord(NoOptions())
    for question in case.plan.questions:
        single = asyncio.run(_single(copies.pool, question, greedy, metric))
        require(question.id in outcome.replies, f"question {question.id!r} fails: {outcome.errors.get(question.id)}")
        found = outcome.replies[question.id].text
        require(found == single, f"question {question.id!r} gets {found!r}, the single model says {single!r}")


async def _single(pool: Pool, question: Question, sampling: Sampling, metric: Metric[Any]) -> str:
    async with open_session(sampling=sampling, metric=metric) as session:
        return (await Context(session, phase="respond", question=question).generate(pool[0], question)).text


CHECKS: tuple[Check, ...] = (
    constructor_only_stores_options,
    needs_are_well_formed,
    refuses_unfit_pools,
    answers_every_question,
    same_seed_same_replies,
    fit_is_idempotent,
    fit_changes_nothing,
    saved_system_restores,
    concurrency_changes_nothing,
    order_changes_nothing,
    uses_only_declared_capabilities,
    smallest_pool_works,
    cost_is_an_upper_bound,
    unparsable_replies_are_handled,
    a_failing_call_loses_one_question,
    cancellation_leaves_no_task,
    identical_models_equal_the_single_model,
)
