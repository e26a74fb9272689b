"""Checks of a method's conduct: it saves what it learnt, and does no more than it declares."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from moco_core.errors import MocoError
from moco_core.models import Pool
from moco_core.types import Generation, Usage, canonical, digest
from moco_toolkit_authoring.elsewhere import PATIENCE, require_no_hash_order
from moco_toolkit_authoring.harness import Outcome, as_pool, open_state
from moco_toolkit_authoring.method_case import MethodCase, MethodPlan
from moco_toolkit_authoring.scripted import Faults, ScriptedCall, ScriptedEngine, ScriptedPool
from moco_toolkit_authoring.suite import Check, NotApplicable, check, require
from moco_toolkit_authoring.toy import able, fallible
from moco_toolkit_authoring.traces import empty_folder, process_as_it_was

__all__ = ["CHECKS"]

_SLACK = 100
"""How many times the calls it makes a method may predict, and how many in any case: early exits are worth a lot."""


def _told(outcome: Outcome) -> str:
    return canonical({key: [reply.text, reply.meta] for key, reply in sorted(outcome.replies.items())})


def _scripted(pool: Pool) -> bool:
    return all(type(m.engine) is ScriptedEngine for m in pool)


@check(after=["fit_is_idempotent"])
def fitting_twice_makes_no_new_call(case: MethodCase) -> None:
    """On one cache, a second fit has no model answer, advance or be trained anew: all of it was kept."""
    _, _, work = case.fitted_twice()
    hint = "let calls be cached, and keep what else is computed by context.once, context.artifact or context.train"
    require(not work, f"a second fit on one cache asks, steps or trains a model again; {hint}")


@check(after=["saved_system_restores"])
def what_was_learnt_is_saved(case: MethodCase) -> None:
    """Where the last model of the pool is the best one on dev, too, a restored system answers like the fitted one."""
    pool = as_pool(case.pool())
    if len(pool) < 2 or case.plan.script is not fallible or not _scripted(pool):
        raise NotApplicable("the models of this test cannot be told to be good or bad")

    def ranked() -> ScriptedPool:
        fields = {m.name: {"adapter": m.adapter} for m in pool}
        return ScriptedPool({m.name: able(i / (len(pool) - 1)) for i, m in enumerate(pool)}, fields=fields)

    fitted, restored = case.run(pool=ranked()), case.run(pool=ranked(), reload_with=case.method())
    for key, reply in fitted.replies.items():
        found = restored.replies.get(key)
        same = found is not None and (found.text, canonical(found.meta)) == (reply.text, canonical(reply.meta))
        require(same, f"question {key!r} is answered otherwise after saving and restoring; is all that fit learnt in state()?")


@check(per_setting=False, after=["same_seed_same_replies"], apart=PATIENCE)
def hash_order_changes_nothing(case: MethodCase) -> None:
    """Two processes that order sets and hashes differently give the same replies."""
    usual = MethodPlan()
    if any(getattr(case.plan, name) != getattr(usual, name) for name in ("pool", "script", "metric", "sampling")):
        raise NotApplicable("the test brings models or scripts of its own")
    if not _scripted(as_pool(case.pool())):
        raise NotApplicable("its models are real ones, which take long to open again")
    require_no_hash_order(case, "replies")


@check(after=["same_seed_same_replies"])
def undeclared_fields_decide_nothing(case: MethodCase) -> None:
    """Replies with and without token log-probabilities lead to the same answers unless needs() declares "logprobs"."""
    if "logprobs" in case.method().needs().declared:
        return
    script = case.plan.script
    if not callable(script):
        raise NotApplicable("the script is no function")

    def saying(tokens: bool) -> Callable[[ScriptedCall], Any]:
        def say(call: ScriptedCall) -> Any:
            said = script(call)
            text = said.text if isinstance(said, Generation) else said
            if not isinstance(text, str):
                return said
            luck = int(digest(call.model, call.transcript, text)[:4], 16)
            count = 1 + luck % 5 if tokens else 0
            usage = Usage(len(call.transcript.split()), len(text.split()))  # the same: what a call costs may decide
            return Generation(text=text, token_ids=range(count), token_logprobs=[-luck / 1000] * count, usage=usage)

        return say

    bare, full = case.run(pool=case.pool(script=saying(False))), case.run(pool=case.pool(script=saying(True)))
    hint = 'it reads token log-probabilities; declare the capability "logprobs"'
    require(_told(bare) == _told(full), f"answers change where replies carry log-probabilities: {hint}")


@check(after=["answers_every_question"])
def cost_is_no_wild_guess(case: MethodCase) -> None:
    """cost_on() does not predict several times the calls that are made."""
    outcome, pool = case.base(), as_pool(case.pool())
    cost = case.method().cost_on(pool, len(case.plan.dev), case.plan.sampling)
    most = max(outcome.calls_per_question.values(), default=0)
    for what, told, made in (("fitting", cost.fit, outcome.calls["fit"]), ("a question", cost.respond, most)):
        require(told <= _SLACK * (made + 1), f"cost_on() predicts {told:g} calls for {what}, {made} are made")


@check(after=["answers_every_question"])
def what_is_told_is_not_taken_back(case: MethodCase) -> None:
    """Whatever is told of a reply before it is whole, the reply begins with it."""
    outcome = case.base()
    for key, reply in outcome.replies.items():
        wrong = next((text for text in outcome.told[key] if not reply.text.startswith(text)), None)
        require(wrong is None, f"question {key!r}: {wrong!r} was told, and the reply is {reply.text!r}; tell what is certain")


@check(after=["answers_every_question"])
def failures_are_not_hidden(case: MethodCase) -> None:
    """Where every model call fails, so does the question: an error is told, not turned into an answer."""
    faults = Faults()
    pool = case.pool(faults=faults)

    def break_everything(system: Any) -> None:
        faults.when = lambda call: True

    outcome = case.run(pool=pool, after_fit=break_everything)
    silent = sorted(outcome.replies)
    asks = case.base().calls["respond"]
    require(not silent or not asks, f"question {silent[:1]} is answered although every call fails")


@check(after=["answers_every_question"])
def the_loop_is_never_blocked(case: MethodCase) -> None:
    """Nothing sleeps in a coroutine: all other questions would stand still meanwhile."""
    here, real, slept = threading.current_thread(), time.sleep, []

    def sleep(seconds: float) -> None:
        if threading.current_thread() is here:
            slept.append(seconds)
        else:
            real(seconds)

    with mock.patch("time.sleep", sleep):
        case.run()
    require(not slept, f"time.sleep({slept[0] if slept else 0:g}) in a coroutine; use await asyncio.sleep(...)")


@check(after=["answers_every_question"])
def nothing_is_left_behind(case: MethodCase) -> None:
    """Fitting, saving and answering leave no file, task, thread or program behind, and print nothing.

    Nor do they move what the whole process shares: its working directory, generators, environment, locale, warnings, root
    logger, settings of torch.
    """

    async def work(saved: Path) -> list[str]:
        async with open_state(metric=case.plan.metric, sampling=case.plan.sampling) as state:
            pool = as_pool(case.pool())
            system = await case.method().fit(pool, list(case.plan.dev), state.context("fit"))
            system.save_files(saved)
            for question in case.plan.questions[:2]:
                try:
                    await system.respond(question, state.context("respond", question))
                except MocoError:
                    continue
            names = [getattr(t.get_coro(), "__qualname__", "") for t in asyncio.all_tasks() - {asyncio.current_task()}]
            return [n for n in names if not n.startswith(("Scheduler.", "Engine."))]

    instead = "use context.rng(...), context.note, or a field of Reply.meta"
    with empty_folder() as folder:
        saved = folder / "saved"
        saved.mkdir()
        with process_as_it_was(instead) as trace:
            left = asyncio.run(work(saved))
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if saved not in (p, *p.parents))
    trace.require_none()
    require(not left, f"{len(left)} tasks are left ({', '.join(sorted(set(left)))}); await what is started: context.gather")
    require(not files, f"{', '.join(files[:3])} was written; use context.note, context.artifact or save_files")


CHECKS: tuple[Check, ...] = (
    fitting_twice_makes_no_new_call,
    what_was_learnt_is_saved,
    hash_order_changes_nothing,
    undeclared_fields_decide_nothing,
    cost_is_no_wild_guess,
    what_is_told_is_not_taken_back,
    failures_are_not_hidden,
    the_loop_is_never_blocked,
    nothing_is_left_behind,
)
