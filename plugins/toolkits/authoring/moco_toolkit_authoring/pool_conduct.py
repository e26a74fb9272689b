"""Checks of a pool's conduct: its engine reads all of a call, says truly why it stopped, and leaves everything as it was."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from typing import Any

import attrs

from moco_core.errors import MocoError
from moco_core.models import Call, Model
from moco_core.runtime.contexts import RunState
from moco_core.types import Generation
from moco_toolkit_authoring.elsewhere import PATIENCE, require_no_hash_order
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_authoring.pool_case import PoolCase
from moco_toolkit_authoring.suite import Check, NotApplicable, check, require

__all__ = ["CHECKS"]

_TALK = [["user", "My name is Ada."], ["assistant", "Hello, Ada."], ["user", "What did I say, and what did you?"]]
_OTHERS = {
    "an earlier message of the user's": [["user", "My name is Bob, and I am seven years old."], *_TALK[1:]],
    "an earlier reply of its own": [_TALK[0], ["assistant", "Good morning. I like your name very much."], _TALK[2]],
    "the system's message": [["system", "You are a pirate. Speak as pirates do."], *_TALK],
}
"""What differs from the usual talk, and the talk that differs in it. Lengths differ too, so that counted tokens do."""
_FURTHER = (
    "Write the first line of a story about a lighthouse.",
    "Invent a name for a small town by the sea, and say why.",
    "Describe your favourite day of the week.",
)
"""What models are asked besides that gave the same replies to everything."""
_MORE = 3  # times the usual budget
_SMALL = 48  # tokens that every model's context holds, so that no other limit cut a reply


@attrs.frozen
class _Probed:
    """What one model said to the usual talk, to the others, and, with a larger budget, to every second prompt."""

    usual: Generation
    others: dict[str, Generation]
    longer: dict[str, Generation]
    changed: tuple[str, ...]


def _probed(case: PoolCase) -> dict[str, _Probed]:
    """Ask all of that of the chosen models, once for all checks. NotApplicable if none takes a conversation."""

    async def work() -> dict[str, _Probed]:
        async with open_state() as state:
            tried = [(m.name, await _probe(case, state, m)) for m in case.chosen()]
        return {name: probed for name, probed in tried if probed is not None}

    found: dict[str, _Probed] = case.once("probed", lambda: asyncio.run(work()))
    if not found:
        raise NotApplicable("no model takes a conversation")
    return found


async def _probe(case: PoolCase, state: RunState, model: Model) -> _Probed | None:
    changed: list[str] = []

    async def ask(messages: list[list[str]], budget: int = 1) -> Generation:
        given = {"messages": messages}
        params = attrs.evolve(case.sampling(0.0), max_new_tokens=budget * case.plan.max_new_tokens).params()
        call = Call(model, "generate", copy.deepcopy(given), copy.deepcopy(params))
        reply: Generation = (await state.scheduler.cached_call(call)).value
        for what, now, then in (("input", call.input, given), ("params", call.params, params)):
            if now != then:
                changed.append(f"its {what} {then!r:.80} became {now!r:.80}")
        return reply

    others = {}
    try:
        usual = await ask(_TALK)
    except MocoError:
        return None  # a table of replies, say, which holds none to this
    for what, talk in _OTHERS.items():
        with contextlib.suppress(MocoError):  # a template without a system's message, say
            others[what] = await ask(talk)
    longer = {p: await ask([["user", p]], _MORE) for p in case.plan.prompts[::2]}
    return _Probed(usual, others, longer, tuple(changed))


def _signs(reply: Generation) -> tuple[Any, ...]:
    """Return what shows that two replies are not to one prompt."""
    return reply.text, reply.token_ids, reply.token_logprobs, reply.usage.prompt_tokens


@check(per_setting=False, after=["fingerprints_are_stable"], apart=PATIENCE)
def hash_order_changes_nothing(case: PoolCase) -> None:
    """Two processes that order sets and hashes differently describe the same models."""
    require_no_hash_order(case, "names, fingerprints or the order of models")


@check(after=["seeds_reproduce"])
def every_message_is_read(case: PoolCase) -> None:
    """Another system's message, or another earlier turn, changes something about some model's reply."""
    probed = _probed(case)
    for what in _OTHERS:
        heeded = [_signs(p.others[what]) != _signs(p.usual) for p in probed.values() if what in p.others]
        told = f"{' and '.join(probed)} say the same whatever {what} is"
        require(not heeded or any(heeded), f"{told}; hand on all of input['messages'], with their roles")


@check(after=["seeds_reproduce"])
def models_answer_for_themselves(case: PoolCase) -> None:
    """Models with different fingerprints do not give the same replies to everything."""
    first, *others = case.chosen()
    for other in others:
        if other.fingerprint == first.fingerprint or not _alike(case.greedy(), first, other):
            continue
        try:
            further = PoolCase(case.catalogue, case.kind, case.name, case.given, attrs.evolve(case.plan, prompts=_FURTHER))
            alike = _alike(further.texts(0.0, together=False), first, other)
        except MocoError:
            alike = False  # a table of replies, say, which holds no more
        require(
            not alike,
            f"{first.name} and {other.name} say the same to everything; does the engine ask call.model? If they are one "
            "model, give them one fingerprint and number them with Model.copy",
        )


def _alike(said: dict[tuple[str, str], Generation], one: Model, other: Model) -> bool:
    pairs = [(reply, said[other.name, prompt]) for (name, prompt), reply in said.items() if name == one.name]
    texts = {reply.text for reply, _ in pairs}
    return len(texts) > 1 and all(_signs(a) == _signs(b) for a, b in pairs)


@check(after=["seeds_reproduce"])
def finish_reasons_are_true(case: PoolCase) -> None:
    """No reply is said to have met a stop string where there was none; one that a larger budget continues was cut short."""
    greedy = case.greedy()
    single = {key: reply for key, reply in greedy.items() if reply.meta.get("calls", 1) == 1}  # a system stops as it likes
    for (name, prompt), reply in single.items():
        where = f"{name} on {prompt[:30]!r}"
        stopped = reply.finish_reason == "stop"
        require(not stopped, f"{where}: finish_reason is 'stop', and no stop string was given; an end of its own is 'eos'")
    for name, probed in _probed(case).items():
        for prompt, more in probed.longer.items():
            if (name, prompt) not in single:
                continue
            reply = greedy[name, prompt]
            goes_on = more.text.startswith(reply.text) and len(more.text.strip()) > len(reply.text.strip())
            cut = reply.finish_reason == "length"
            where = f"{name} on {prompt[:30]!r}: finish_reason is {reply.finish_reason!r}"
            require(cut or not goes_on, f"{where}, but max_new_tokens ended it: say 'length'")
            room = reply.usage.completion_tokens < case.plan.max_new_tokens  # a last token may be the budget's last, too
            require(not (cut and room) or more.text != reply.text, f"{where}, but a larger budget adds nothing: say 'eos'")
            used, budget = more.usage.completion_tokens, _MORE * case.plan.max_new_tokens
            early = more.finish_reason == "length" and used < budget and used + more.usage.prompt_tokens < _SMALL
            where = f"{name} on {prompt[:30]!r}: finish_reason is 'length'"
            require(not early, f"{where} after {used} of {budget} tokens: say 'eos'")


@check(after=["seeds_reproduce"])
def calls_are_left_as_they_are(case: PoolCase) -> None:
    """Answering changes neither the input nor the parameters of a call, which its key and other models rely on."""
    for name, probed in _probed(case).items():
        require(not probed.changed, f"{name} changed a call: {''.join(probed.changed[:1])}; copy what you change")


@check(after=["seeds_reproduce"])
def asking_leaves_nothing_behind(case: PoolCase) -> None:
    """Answering prints nothing and, once the models are closed, leaves no file, thread or program behind.

    Nor does it move what the whole process shares: its working directory, generators, environment, locale, warnings, root
    logger, settings of torch.
    """
    case.once("greedy", case._greedy)[1].require_none()
    case.asked()[1].require_none()


CHECKS: tuple[Check, ...] = (
    hash_order_changes_nothing,
    every_message_is_read,
    models_answer_for_themselves,
    finish_reasons_are_true,
    calls_are_left_as_they_are,
    asking_leaves_nothing_behind,
)
