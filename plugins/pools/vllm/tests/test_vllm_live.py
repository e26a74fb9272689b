"""vLLM for real, on the tiny pool's base and its adapters: one engine for the whole module, since a start takes long.
What needs no engine is tested in test_pool_vllm.py, test_vllm_plans.py and test_vllm_switching.py.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

import attrs
import torch
from engine_methods import check_methods
from tiny_family import LORAS, PROMPTS, family, reference, same, say, weights

from moco_core.errors import MocoError
from moco_core.models import Model
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.types import Generation, Question, Sampling
from moco_pool_transformers.options import Options as TransformersOptions
from moco_pool_transformers.pool import TransformersPool
from moco_pool_vllm.engine import VLLMEngine
from moco_pool_vllm.handle import EngineHandle
from moco_pool_vllm.options import Options
from moco_pool_vllm.pool import VLLMPool
from moco_toolkit_authoring import open_state, run_checks

# vLLM and what it imports warn at their own pace
pytestmark = pytest.mark.filterwarnings("default")


class Farm:
    """Keeps engines open between the sessions of a module: a session's end would end them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.handles: dict[str, EngineHandle] = {}
        real = VLLMEngine._load

        async def load(engine: VLLMEngine, key: str, place: Any) -> EngineHandle:
            if key not in self.handles:
                self.handles[key] = await real(engine, key, place)
            return self.handles[key]

        async def leave_open(engine: VLLMEngine) -> None:
            engine._opening.clear()
            engine._switchers.clear()
            engine._gates.clear()
            engine._handles = {}

        patch.setattr(VLLMEngine, "_load", load)
        patch.setattr(VLLMEngine, "close", leave_open)


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with pytest.MonkeyPatch.context() as patch:
        found = Farm(patch)
        yield found
        for handle in found.handles.values():
            asyncio.run(handle.close())


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "models": family(),
        "dtype": "float32",
        "enforce_eager": True,
        "kv_cache": 0.05,
        "max_num_seqs": 16,
        "cache": str(tmp_path_factory.mktemp("cache")),
    }


def models_of(settings: dict[str, Any]) -> list[Model]:
    return list(VLLMPool(build(Options, settings)).models())


def test_conformance(farm: Farm, settings: dict[str, Any]) -> None:
    results = run_checks("pool", "vllm", settings=[settings])
    assert not [(r.name, r.message) for r in results if not r.ok]
    done = {r.name for r in results if r.status == "passed"}
    assert {"generation_works", "stop_strings_stop", "logprobs_fit_their_tokens", "seeds_reproduce"} <= done
    assert {"batches_change_nothing", "undeclared_calls_are_refused"} <= done


def test_greedy_replies_and_their_logprobs_are_those_of_transformers(farm: Farm, settings: dict[str, Any]) -> None:
    mine, theirs = models_of(settings), reference("base", *LORAS, form="adapter")
    assert [m.name for m in mine] == [m.name for m in theirs]
    replies = say(mine)
    for one, other in zip(replies, say(theirs), strict=True):
        same(one, other)
    raw = {"prompts": ["State the", "47, 3 and 6 are"], "raw": True}
    for one, other in zip(say(mine, **raw), say(theirs, **raw), strict=True):
        same(one, other)
    stop = {"stop": ("e", " 1")}
    for one, other in zip(say(mine, **stop), say(theirs, **stop), strict=True):
        same(one, other)
    # the adapters speak, request by request, on one resident base
    n = len(PROMPTS)
    assert len({tuple(g.text for g in replies[i * n : (i + 1) * n]) for i in range(len(mine))}) == len(mine)
    assert len(farm.handles) == 1


def test_reasoning_is_split_off_as_by_transformers(farm: Farm, settings: dict[str, Any]) -> None:
    """Tags that the models' own words supply: what stands between them is reasoning, on both engines."""
    prompts = [p for p in PROMPTS if isinstance(p, str)]
    whole = say(models_of(settings), prompts)
    first = next(g.text for g in whole if len(g.text.split()) > 4).split()
    tags = [[first[1], first[3]]]
    options = {**settings, "reasoning_tags": tags}
    local = TransformersPool(
        build(
            TransformersOptions,
            {
                "models": family(),
                "dtype": "float32",
                "device": "cpu",
                "cache": settings["cache"],
                "reasoning_tags": tags,
            },
        )
    )
    mine, theirs = say(models_of(options), prompts), say(local.models(), prompts)
    assert [(g.reasoning, g.text) for g in mine] == [(g.reasoning, g.text) for g in theirs]
    assert any(g.reasoning for g in mine) and [g.token_ids for g in mine] == [g.token_ids for g in whole]


def test_several_samples_of_one_question(farm: Farm, settings: dict[str, Any]) -> None:
    """Each has its own seed: they differ, come again, and agree with what one is when it is asked alone."""
    model = models_of(settings)[0]

    async def work(n: int) -> list[Generation]:
        async with open_state(sampling=Sampling(max_new_tokens=8, temperature=1.5)) as state:
            context = state.context("fit")
            found: list[Generation] = await context.gather(context.generate(model, "the quick") for _ in range(n))
            return found

    eight = asyncio.run(work(8))
    assert len({g.text for g in eight}) > 4
    assert [g.token_ids for g in asyncio.run(work(8))] == [g.token_ids for g in eight]
    assert asyncio.run(work(1))[0].token_ids == eight[0].token_ids


@pytest.mark.slow
def test_replies_are_told_as_they_grow_and_are_what_they_are_at_once(farm: Farm, settings: dict[str, Any]) -> None:
    models = models_of(settings)

    async def work(listen: bool, sampling: Sampling) -> tuple[list[Generation], list[list[str]]]:
        told: list[list[str]] = []
        async with open_state(sampling=sampling) as run:

            async def one(model: Model, prompt: str) -> Generation:
                told.append(heard := [])
                state = attrs.evolve(run, on_reply=heard.append if listen else None)
                context = state.context("respond", Question(id=prompt, prompt=prompt))
                return await context.generate(model, prompt, tell=context.tell)

            texts = [p for p in PROMPTS if isinstance(p, str)]
            found = await run.context("fit").gather(one(m, p) for m in models for p in texts)
        return found, told

    grew = 0
    for more in ({}, {"temperature": 1.2}, {"stop": ("e", " 1")}):
        sampling = Sampling(max_new_tokens=24, **more)
        whole, nothing = asyncio.run(work(False, sampling))
        replies, told = asyncio.run(work(True, sampling))
        assert not any(nothing)
        for one, other in zip(replies, whole, strict=True):
            assert (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)
            assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-3)
        for reply, beginnings in zip(replies, told, strict=True):
            for earlier, later in itertools.pairwise([*beginnings, reply.text]):
                assert later.startswith(earlier)
            grew += len(set(beginnings)) > 2
    assert grew > len(models)


def test_likeliest_tokens_are_noted_with_their_number(farm: Farm, settings: dict[str, Any]) -> None:
    """Compared with the logits of transformers; sampled, so that the emitted token is not always among them."""
    model, k = models_of({**settings, "top_logprobs": 3})[0], 3
    (theirs,) = reference("base", form="adapter")
    prompts = ["the quick brown fox", "Sort 9, 4 and 7."]
    outside = 0
    for prompt, reply in zip(prompts, say([model], prompts, temperature=2.0, max_new_tokens=6), strict=True):
        noted = reply.meta["top_logprobs"]
        assert noted["k"] == k and [len(step) for step in noted["tokens"]] == [k] * len(reply.token_ids)
        with theirs.engine.use(theirs) as (loaded,):  # type: ignore[attr-defined]
            given = loaded.render_input({"messages": [["user", prompt]]})
            ids = torch.tensor([[*given.ids, *reply.token_ids]])
            mask = torch.ones_like(ids)
            logits = loaded.forward(ids, mask, mask.cumsum(-1) - 1, None, keep=0).logits[0, len(given.ids) - 1 : -1]
        want = torch.log_softmax(logits.float(), -1).topk(k)
        for step, token, score, values, places in zip(
            noted["tokens"], reply.token_ids, reply.token_logprobs, want.values, want.indices, strict=True
        ):
            assert [p for _, p in step] == pytest.approx(values.tolist(), abs=1e-3)
            assert [i for i, _ in step] == places.tolist()
            outside += token not in dict(step)
            assert dict(step).get(token, score) == pytest.approx(score)
    assert outside


def test_the_context_is_kept(farm: Farm, settings: dict[str, Any]) -> None:
    model = models_of(settings)[0]
    limit = model.context_length
    assert limit

    async def work() -> Any:
        async with open_state(sampling=Sampling(max_new_tokens=16)) as state:
            context = state.context("fit")
            long = context.generate(model, "word " * limit)
            return await context.gather([long, context.generate(model, "hi")], tolerate=MocoError)

    too_long, fine = asyncio.run(work())
    assert f"exceed the context of {limit}" in str(too_long) and isinstance(fine, Generation)


def test_methods_run_unchanged(farm: Farm, settings: dict[str, Any]) -> None:
    cache = Cache(None)
    check_methods(VLLMPool(build(Options, settings)), cache)
    cache.close()


@pytest.mark.slow
def test_an_adapter_that_was_trained_here_is_served_as_transformers_serves_it(
    farm: Farm, settings: dict[str, Any], tmp_path: Path
) -> None:
    from moco_toolkit_training import Demonstration, Sft

    (base,) = reference("base", form="adapter")
    job = Sft(rows=[Demonstration.of("What is the sum of 1 and 2?", "the town")], max_steps=20, learning_rate=1e-2)

    async def train() -> Model:
        cache = Cache(tmp_path / "calls.sqlite")
        async with open_state(cache=cache) as state:
            model = await state.context("fit").train(base, job)
        cache.close()
        return model

    trained = asyncio.run(train())
    entry = {"model": weights("base"), "adapter": trained.info["spec"].adapter, "name": "tuned"}
    (mine,) = models_of({**settings, "models": [entry]})
    prompts = [*PROMPTS, "What is the sum of 1 and 2?"]
    replies = say([mine], prompts)
    assert replies[-1].text == "the town" != say([base], prompts[-1:])[0].text
    for one, other in zip(replies, say([trained], prompts), strict=True):
        same(one, other)
