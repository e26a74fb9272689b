"""Checks of pools: descriptions that load nothing, and engines that do what their models declare."""

from __future__ import annotations

import asyncio
import itertools
import math
import typing
from collections.abc import Iterator
from typing import Any, Literal

import attrs

from moco_core.errors import MocoError
from moco_core.models import CAPABILITIES, Call, Engine, Model
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.runtime.contexts import RunState
from moco_core.types import Generation, Message, Question, Sampling
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_authoring.pool_case import PoolCase
from moco_toolkit_authoring.suite import Check, NotApplicable, check, require
from moco_toolkit_authoring.traces import tensor_bytes

__all__ = ["CHECKS"]

_LOADED_BYTES = 1 << 18
_HOT = 2.0  # the highest temperature that every service takes; hardly any model says the same thing twice at it


@check(after=["entry_point_resolves", "options_have_defaults"])
def models_are_described(case: PoolCase) -> None:
    """models() names at least one model; names are unique, capabilities known, fingerprints given."""
    models = list(case.source().models())
    require(models, "models() is empty")
    names = [m.name for m in models]
    twice = sorted({n for n in names if names.count(n) > 1})
    require(not twice, f"several models are called {', '.join(twice)}")
    copies: set[tuple[str, int]] = set()
    for model in models:
        unknown = sorted(model.capabilities - set(CAPABILITIES))
        require(not unknown, f"{model.name}: unknown capabilities {', '.join(unknown)}")
        require(model.capabilities, f"{model.name} declares no capability")
        require(model.fingerprint.strip(), f"{model.name} has no fingerprint")
        require(isinstance(model.engine, Engine), f"{model.name} has no engine")
        require(
            (model.fingerprint, model.copy) not in copies,
            f"{model.name} has the fingerprint of another model; number copies with Model.copy",
        )
        copies.add((model.fingerprint, model.copy))


@check(after=["models_are_described"])
def models_load_nothing(case: PoolCase) -> None:
    """models() reads descriptions, no weights."""
    case.source()
    before = tensor_bytes()
    source = case.source()
    models = source.models()
    loaded = tensor_bytes() - before
    require(loaded < _LOADED_BYTES, f"models() of {len(models)} models holds {loaded} bytes of tensors")


@check(after=["models_are_described"])
def fingerprints_are_stable(case: PoolCase) -> None:
    """Two sources with the same options describe the same models."""
    source = case.source()
    first = [(m.name, m.fingerprint, m.copy, sorted(m.capabilities)) for m in source.models()]
    again = [(m.name, m.fingerprint, m.copy, sorted(m.capabilities)) for m in source.models()]
    other = [(m.name, m.fingerprint, m.copy, sorted(m.capabilities)) for m in case.source().models()]
    require(first == again, "models() changes from call to call")
    require(first == other, "a second source gives other names, fingerprints or capabilities")


@check(after=["models_are_described"])
def generation_works(case: PoolCase) -> None:
    """Models write text, say why they stopped, and count their tokens within the budget."""
    if not case.chosen():
        raise NotApplicable("no model generates")
    for (name, prompt), reply in case.greedy().items():
        require(isinstance(reply, Generation), f"{name} returns {type(reply).__name__}, not a Generation")
        where = f"{name} on {prompt[:30]!r}"
        require(isinstance(reply.text, str), f"{where}: text is {type(reply.text).__name__}")
        require(reply.finish_reason in ("eos", "stop", "length"), f"{where}: finish_reason {reply.finish_reason!r}")
        # a system's reply is made of several calls, each with a budget of its own
        used, limit = reply.usage.completion_tokens, case.plan.max_new_tokens * int(reply.meta.get("calls", 1))
        require(used <= limit, f"{where}: {used} tokens, max_new_tokens is {limit}")
        require(used >= len(reply.token_ids), f"{where}: {len(reply.token_ids)} token ids, but usage counts {used}")
        require(all(t >= 0 for t in reply.token_ids), f"{where}: token ids below 0")
        require(reply.usage.prompt_tokens > 0, f"{where}: usage.prompt_tokens is {reply.usage.prompt_tokens}")


@check(after=["generation_works"])
def stop_strings_stop(case: PoolCase) -> None:
    """A reply ends before a stop string."""
    greedy = case.greedy()
    tried = 0
    for model in case.chosen():
        for prompt in case.plan.prompts:
            text = greedy[model.name, prompt].text
            middle = text[len(text) // 2 : len(text) // 2 + 2].strip()
            if len(text) < 4 or not middle:
                continue
            found = asyncio.run(_generate(case, model.name, prompt, (middle,)))
            require(middle not in found.text, f"{model.name}: {found.text!r} contains the stop string {middle!r}")
            why = found.finish_reason
            require(why == "stop", f"{model.name}: stopped by {middle!r}, finish_reason is {why!r}")
            tried += 1
            break
    if not tried:
        raise NotApplicable("no reply is long enough to be stopped")


async def _generate(case: PoolCase, name: str, prompt: str, stop: tuple[str, ...]) -> Generation:
    sampling = attrs.evolve(case.sampling(0.0), stop=stop)
    async with open_state(sampling=sampling) as state:
        model = next(m for m in case.source().models() if m.name == name)
        return await state.context("respond").generate(model, Question(id="stop", prompt=prompt))


@check(after=["generation_works"])
def logprobs_fit_their_tokens(case: PoolCase) -> None:
    """A model with log-probabilities gives one per emitted token, none above 0."""
    models = {m.name for m in case.chosen() if m.can("logprobs")}
    if not models:
        raise NotApplicable("no model returns log-probabilities")
    for (name, prompt), reply in case.greedy().items():
        if name not in models:
            continue
        where = f"{name} on {prompt[:30]!r}"
        require(
            len(reply.token_logprobs) == len(reply.token_ids), f"{where}: tokens and log-probabilities differ in number"
        )
        require(reply.token_ids or not reply.text, f"{where}: text without token ids")
        wrong = [p for p in reply.token_logprobs if not (math.isfinite(p) and p <= 1e-6)]
        require(not wrong, f"{where}: log-probabilities {wrong[:3]}")


@check(after=["models_are_described"])
def scores_embeddings_and_rewards_work(case: PoolCase) -> None:
    """Every model scores, embeds and judges where it declares that it can."""
    asyncio.run(_extras(case))


async def _extras(case: PoolCase) -> None:
    source = case.source()
    async with open_state() as state:
        for model in case.chosen(source, "score"):
            one, two = await state.context("fit").score(model, "What is 2 + 3?", ["5", "the number 7"])
            for found in (one, two):
                require(found.token_ids, f"{model.name}: a continuation has no tokens")
                require(
                    len(found.token_ids) == len(found.token_logprobs), f"{model.name}: one log-probability per token"
                )
                require(all(p <= 1e-6 for p in found.token_logprobs), f"{model.name}: a log-probability above 0")
            (other,) = await state.context("fit").score(model, "Name a fruit that is red. Think of apples.", ["5"])
            heeded = (other.prompt_tokens, other.token_logprobs) != (one.prompt_tokens, one.token_logprobs)
            require(heeded, f"{model.name}: a continuation scores the same after another prompt; is the prompt read?")
        for model in case.chosen(source, "embed"):
            vectors = await state.context("fit").embed(model, ["one", "something longer than that"])
            require(len(vectors) == 2 and len(vectors[0]) == len(vectors[1]) > 0, f"{model.name}: uneven embeddings")
            require(all(math.isfinite(x) for v in vectors for x in v), f"{model.name}: an embedding is not finite")
            require([*vectors[0]] != [*vectors[1]], f"{model.name}: two texts have one embedding; is the text read?")
        for model in case.chosen(source, "reward"):
            turns = (Message("user", "What is 2 + 3?"), Message("assistant", "5"))
            values = await state.context("fit").reward(model, turns)
            require(values and all(math.isfinite(v) for v in values), f"{model.name}: reward {values!r}")


@check(after=["generation_works", "fingerprints_are_stable"])
def seeds_reproduce(case: PoolCase) -> None:
    """Sampled replies depend on their seeds alone: newly opened models say the same again."""
    first = case.sampled()
    again = case.texts(1.0, together=False)
    for key, reply in first.items():
        require(again[key].text == reply.text, f"{key[0]} on {key[1][:30]!r}: {reply.text!r}, then {again[key].text!r}")


@check(after=["seeds_reproduce"])
def batches_change_nothing(case: PoolCase) -> None:
    """A prompt gets one reply, alone or among others, greedy or sampled."""
    for temperature, name, alone in ((0.0, "greedy", case.greedy()), (1.0, "sampled", case.sampled())):
        together = case.texts(temperature, together=True)
        for key, reply in alone.items():
            where, found = f"{key[0]} on {key[1][:30]!r}, {name}", together[key].text
            require(found == reply.text, f"{where}: {reply.text!r} alone, {found!r} in a batch")


def _variants(case: PoolCase) -> Iterator[dict[str, Any]]:
    """Yield settings that differ from the case's in one option: the other truth value, choice, number or text."""
    names = [m.name for m in case.source().models()]
    hints = typing.get_type_hints(case.cls.Options)
    for name, now in attrs.asdict(case.options(), recurse=False).items():
        others: list[Any] = []
        if isinstance(now, bool):
            others = [not now]
        elif typing.get_origin(hints[name]) is Literal:
            others = [c for c in typing.get_args(hints[name]) if c != now]
        elif isinstance(now, (int, float)):
            others = [now + 1, now - 1, now / 2]
        elif isinstance(now, str):
            others = [now + "x"]
        for other in others:
            given = {**case.given, name: other}
            try:
                models = case.cls(build(case.cls.Options, given, case.name, plugins=case.catalogue)).models()
            except Exception:
                continue  # out of its range, or of what there is
            if [m.name for m in models] == names:
                yield given
                break


@check(after=["seeds_reproduce"])
def fingerprints_tell_options_apart(case: PoolCase) -> None:
    """An option that changes replies changes fingerprints: a cache would serve the old replies otherwise."""
    if not case.chosen():
        raise NotApplicable("no model generates")
    prints = {m.name: m.fingerprint for m in case.source().models()}
    greedy = case.greedy()
    for given in itertools.islice(_variants(case), case.plan.variants):
        other = PoolCase(case.catalogue, case.kind, case.name, given, case.plan)
        same = {m.name for m in other.chosen() if m.fingerprint == prints.get(m.name)}
        if not same:
            continue
        (changed,) = (k for k in given if given[k] != case.given.get(k, getattr(case.options(), k)))
        try:
            replies = other.texts(0.0, together=False)
        except MocoError:
            continue  # not to be had here, a device say
        for (name, prompt), reply in replies.items():
            if name in same:
                before = greedy[name, prompt].text
                require(
                    reply.text == before,
                    f"{name}: {changed}={given[changed]!r} changes its reply from {before!r} to {reply.text!r} but not its "
                    "fingerprint; put every option that decides replies into Model.fingerprint",
                )


@check(after=["seeds_reproduce"])
def temperature_is_heeded(case: PoolCase) -> None:
    """At a high temperature, another seed writes another text for some prompt."""
    hot = [case.texts(_HOT, together=False, seed=seed) for seed in range(3)]
    if any(len(reply.text) > 1 for reply in hot[0].values()):
        moved = any(other[key].text != reply.text for other in hot[1:] for key, reply in hot[0].items())
        require(moved, f"three seeds at temperature {_HOT:g} give the same replies; are temperature and seed used?")


@check(after=["models_are_described"])
def undeclared_calls_are_refused(case: PoolCase) -> None:
    """A call of a kind that a model does not declare fails; it is not answered with something else."""
    asyncio.run(_refusals(case))


async def _refusals(case: PoolCase) -> None:
    inputs: dict[str, Any] = {
        "generate": {"messages": [["user", "Hello"]]},
        "score": {"messages": [["user", "Hello"]], "continuations": ["a"]},
        "embed": {"texts": ["Hello"]},
        "reward": {"messages": [["user", "Hello"], ["assistant", "Hi"]]},
    }
    source = case.source()
    async with open_state() as state:
        for model in list(source.models())[: case.plan.models]:
            for kind, given in inputs.items():
                if model.can(kind):
                    continue
                await _refused(state, model, kind, given)


async def _refused(state: RunState, model: Model, kind: str, given: Any) -> None:
    try:
        await state.scheduler.cached_call(Call(model, kind, given, Sampling(max_new_tokens=2).params()))
    except MocoError:
        return
    raise AssertionError(f"{model.name} answers {kind!r}, which it does not declare")


@check(after=["models_are_described"])
def engines_close_twice(case: PoolCase) -> None:
    """An engine can be closed before it was used, and closed again."""

    async def work() -> None:
        for engine in {id(m.engine): m.engine for m in case.source().models()}.values():
            await engine.close()
            await engine.close()

    asyncio.run(work())


@check(after=["generation_works", "fingerprints_are_stable"])
def results_survive_the_cache(case: PoolCase) -> None:
    """What comes back from the cache equals what the model returned."""

    async def work(cache: Cache) -> list[Generation]:
        async with open_state(cache=cache, sampling=case.sampling(0.0)) as state:
            model = case.chosen()[0]
            return [await state.context("fit").generate(model, p) for p in case.plan.prompts[:2]]

    cache = Cache(None)
    try:
        fresh, stored = asyncio.run(work(cache)), asyncio.run(work(cache))
    finally:
        cache.close()
    for one, other in zip(fresh, stored, strict=True):
        require(one == other, f"{one!r} is not what the cache returns: {other!r}")


CHECKS: tuple[Check, ...] = (
    models_are_described,
    models_load_nothing,
    fingerprints_are_stable,
    generation_works,
    stop_strings_stop,
    logprobs_fit_their_tokens,
    scores_embeddings_and_rewards_work,
    seeds_reproduce,
    batches_change_nothing,
    undeclared_calls_are_refused,
    engines_close_twice,
    results_survive_the_cache,
    fingerprints_tell_options_apart,
    temperature_is_heeded,
)
