"""Checks of methods: what a run relies on, tried on scripted models with questions nobody has seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from moco_core.data import Metric
from moco_core.errors import MocoError
from moco_core.methods import Cost, System
from moco_core.models import CAPABILITIES, Pool
from moco_core.options import NoOptions, plain
from moco_core.types import Question, Reply, Sampling, canonical
from moco_toolkit_authoring.harness import Outcome, as_pool, open_state
from moco_toolkit_authoring.method_case import MethodCase
from moco_toolkit_authoring.scripted import (
    Faults,
    ScriptedCall,
    ScriptedEngine,
    ScriptedPool,
)
from moco_toolkit_authoring.scripts import Said
from moco_toolkit_authoring.suite import Check, NotApplicable, check, require
from moco_toolkit_authoring.toy import LastWord, unparsable

__all__ = ["CHECKS"]

_PATIENCE = 5.0  # seconds until a coroutine that should have moved is taken to hang


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
    merges = case.cls.level == "weight"
    require(not merges or "weights" in needs.declared, "level is 'weight', but needs() asks for no model's weights")


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
            json.dumps(reply.meta, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"Reply.meta of question {key!r} is not JSON: {error}") from None


@check(after=["answers_every_question"])
def same_seed_same_replies(case: MethodCase) -> None:
    """Two runs with one seed, in two instances, give the same replies."""
    _same(case.base(), case.watched(0)[0], "a second run with the same seed")


@check(after=["same_seed_same_replies"])
def the_runs_seed_reaches_every_draw(case: MethodCase) -> None:
    """No line of the method draws with one seed in runs of two seeds, and what its own option `seed` moves, theirs move too."""
    drawn = case.watched(0)[1].found
    other = case.watched(1)[1].found if drawn else {}
    fixed = sorted((where, seed) for where, seeds in drawn.items() for seed in seeds & other.get(where, set()))
    for where, seed in fixed:
        raise AssertionError(f"{where} draws with the seed {seed} whatever the run's seed is; draw from context.rng(...)")
    options = case.options()
    own = getattr(options, "seed", None)
    if not isinstance(own, int):
        return
    greedy = attrs.evolve(case.plan.sampling, temperature=0.0)

    def outcome(added: int, seed: int) -> str:
        method = case.cls(attrs.evolve(options, seed=own + added))
        found = case.run(method, seed=seed, sampling=greedy)
        return canonical([found.state, {k: [r.text, r.meta] for k, r in found.replies.items()}])

    first = outcome(0, 0)
    if any(outcome(added, 0) != first for added in (1, 2)):
        moved = any(outcome(0, seed) != first for seed in (1, 2))
        require(moved, "the run's seed changes nothing, the option does; draw from context.rng(..., options.seed)")


@check(after=["same_seed_same_replies"])
def fit_is_idempotent(case: MethodCase) -> None:
    """One instance fitted twice gives equal systems."""
    first, again, _ = case.fitted_twice()
    _same(first, again, "after fitting the same instance again")


@check(after=["answers_every_question"])
def fit_changes_nothing(case: MethodCase) -> None:
    """Fitting leaves the method, its options, the pool and the examples as they were."""
    method, pool = case.method(), as_pool(case.pool())
    options, attributes = plain(method.options), set(vars(method))
    names, dev = pool.names, tuple(case.plan.dev)
    before = canonical(plain(dev))
    case.run(method, pool=pool, questions=[], dev=dev)
    require(plain(method.options) == options, "fit changed the options")
    added = sorted(set(vars(method)) - attributes)
    require(not added, f"fit left {', '.join(added)} on the method; what was learnt belongs to the system")
    require(pool.names == names, "fit changed the pool")
    require(canonical(plain(dev)) == before, "fit changed the dev examples")


@check(after=["same_seed_same_replies"])
def saved_system_restores(case: MethodCase) -> None:
    """State and files restore, in a new instance, to a system with equal replies; nothing is pickled."""
    outcome = case.base()
    try:
        json.dumps(outcome.state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"state() is not JSON data: {error}; infinity and NaN are not, write None") from None
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
    """Fitting and answering make at most the model calls that cost_on() predicts."""
    outcome, pool = case.base(), as_pool(case.pool())
    cost = case.method().cost_on(pool, len(case.plan.dev), case.plan.sampling)
    fit = outcome.calls["fit"]
    require(fit <= cost.fit, f"fit made {fit} calls, cost_on() predicts {cost.fit:g}")
    for key, count in outcome.calls_per_question.items():
        require(count <= cost.respond, f"question {key!r} took {count} calls, cost_on() predicts {cost.respond:g}")


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
    async with open_state(metric=plan.metric, sampling=plan.sampling) as state:
        system = await case.method().fit(pool, list(plan.dev), state.context("fit"))
        faults.hang = True
        task = asyncio.ensure_future(system.respond(question, state.context("respond", question)))
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
    async with open_state(sampling=sampling, metric=metric) as state:
        return (await state.context("respond", question).generate(pool[0], question)).text


CHECKS: tuple[Check, ...] = (
    constructor_only_stores_options,
    needs_are_well_formed,
    refuses_unfit_pools,
    answers_every_question,
    same_seed_same_replies,
    the_runs_seed_reaches_every_draw,
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
