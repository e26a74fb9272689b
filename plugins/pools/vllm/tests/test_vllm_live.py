"""vLLM for real, on tiny random checkpoints: one engine start for the whole module, since each takes the better part of a
minute. What needs no engine is tested in test_pool_vllm.py.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

from engine_methods import check_methods
from random_checkpoints import write, write_lora

from moco_core.cache import Cache
from moco_core.context import Context
from moco_core.errors import MocoError
from moco_core.models import Model
from moco_core.options import build
from moco_core.testing import open_session, run_checks
from moco_core.types import Generation, Message, Sampling
from moco_pool_transformers.pool import Options as TransformersOptions
from moco_pool_transformers.pool import TransformersPool
from moco_pool_vllm.engine import VLLMEngine
from moco_pool_vllm.host import Host
from moco_pool_vllm.pool import Options, VLLMPool

MARGIN = 1e-3
PROMPTS = ["What is 2 + 3?", "the quick brown fox", "Say a word.", "numbers 0 1 2 3", "Q: what is the capital?"]


class Farm:
    """Keeps engines open between the sessions of a module: a session's end would end them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.hosts: dict[str, Host] = {}
        real = VLLMEngine._load

        async def load(engine: VLLMEngine, key: str, place: Any) -> Host:
            if key not in self.hosts:
                self.hosts[key] = await real(engine, key, place)
            return self.hosts[key]

        async def leave_open(engine: VLLMEngine) -> None:
            engine._opening.clear()
            engine._turns.clear()
            engine._gates.clear()
            engine._hosts = {}

        patch.setattr(VLLMEngine, "_load", load)
        patch.setattr(VLLMEngine, "close", leave_open)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("checkpoints")
    base = write(root / "base", 0)
    return {"base": base, "lora": write_lora(root / "lora", base, 1), "root": str(root)}


def settings(folders: dict[str, str]) -> dict[str, Any]:
    tuned = {"model": folders["base"], "adapter": folders["lora"], "name": "tuned"}
    entries = [{"model": folders["base"], "name": "plain"}, tuned]
    return {
        "models": entries,
        "dtype": "float32",
        "enforce_eager": True,
        "kv_cache": 0.05,
        "max_num_seqs": 16,
        "cache": folders["root"],
    }


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with pytest.MonkeyPatch.context() as patch:
        found = Farm(patch)
        yield found
        for host in found.hosts.values():
            asyncio.run(host.close())


def vllm_models(folders: dict[str, str], **options: Any) -> list[Model]:
    return list(VLLMPool(build(Options, {**settings(folders), **options})).models())


def transformers_models(folders: dict[str, str]) -> list[Model]:
    given = {"models": settings(folders)["models"], "dtype": "float32", "device": "cpu", "cache": folders["root"]}
    return list(TransformersPool(build(TransformersOptions, given)).models())


def gather(models: list[Model], ask: Any) -> list[Any]:
    """Run ``ask(context, model)`` for all models in one session."""

    async def work() -> list[Any]:
        async with open_session(sampling=Sampling(max_new_tokens=16)) as session:
            context = Context(session, phase="fit")
            return await context.gather(ask(context, m) for m in models)

    return asyncio.run(work())


def test_conformance(farm: Farm, folders: dict[str, str]) -> None:
    results = run_checks("pool", "vllm", settings=[settings(folders)])
    assert not [(r.name, r.message) for r in results if not r.ok]
    done = {r.name for r in results if r.status == "passed"}
    assert {"generation_works", "stop_strings_stop", "logprobs_fit_their_tokens", "seeds_reproduce"} <= done
    assert {"batches_change_nothing", "undeclared_calls_are_refused"} <= done


def same(one: Generation, other: Generation) -> None:
    """Equal greedy replies; or the log-probabilities of the first differing tokens show a tie within the margin."""
    assert one.usage.prompt_tokens == other.usage.prompt_tokens
    for i, (a, b) in enumerate(zip(one.token_ids, other.token_ids, strict=False)):
        p, q = one.token_logprobs[i], other.token_logprobs[i]
        assert abs(p - q) < MARGIN, f"token {i}: {a} ({p}) and {b} ({q})"
        if a != b:
            return
    assert (one.text, one.finish_reason, one.token_ids) == (other.text, other.finish_reason, other.token_ids)


def test_greedy_replies_and_their_logprobs_are_those_of_transformers(farm: Farm, folders: dict[str, str]) -> None:
    talk = [Message("system", "Be brief."), Message("user", "the lazy dog"), Message("assistant", "runs a")]

    async def ask(context: Context, model: Model) -> list[Generation]:
        replies = [context.generate(model, p) for p in [*PROMPTS, talk]]
        raw = [context.generate(model, p, raw=True) for p in PROMPTS]
        stop = [context.generate(model, p, Sampling(max_new_tokens=16, stop=("e", " 1"))) for p in PROMPTS]
        found: list[Generation] = await context.gather([*replies, *raw, *stop])
        return found

    mine, theirs = gather(vllm_models(folders), ask), gather(transformers_models(folders), ask)
    for a, b in zip(mine, theirs, strict=True):
        for one, other in zip(a, b, strict=True):
            same(one, other)
    assert mine[0] != mine[1]  # the adapter speaks, request by request, on one resident base
    assert len(farm.hosts) == 1


def test_the_context_is_kept(farm: Farm, folders: dict[str, str]) -> None:
    model = vllm_models(folders)[0]
    assert model.context_length == 512

    async def ask(context: Context, model: Model) -> list[Any]:
        long = context.generate(model, "word " * 600)
        return await context.gather([long, context.generate(model, "hi")], tolerate=MocoError)

    ((too_long, fine),) = gather([model], ask)
    assert "exceed the context of 512" in str(too_long) and isinstance(fine, Generation)


def test_methods_run_unchanged(farm: Farm, folders: dict[str, str]) -> None:
    cache = Cache(None)
    check_methods(VLLMPool(build(Options, settings(folders))), cache)
    cache.close()
