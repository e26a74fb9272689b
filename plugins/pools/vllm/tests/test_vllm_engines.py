"""What needs several engine starts: embeddings, rewards, models that take turns, processes that end."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

from random_checkpoints import write

import moco_pool_vllm.pool as pool_module
from moco_core.context import Context
from moco_core.errors import ConfigError
from moco_core.options import build
from moco_core.testing import open_session
from moco_core.types import Message, Sampling
from moco_pool_transformers.pool import Options as TransformersOptions
from moco_pool_transformers.pool import TransformersPool
from moco_pool_vllm.placement import Place
from moco_pool_vllm.pool import Options, VLLMPool

# vLLM and what it imports warn at their own pace
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

QUICK = {"dtype": "float32", "enforce_eager": True, "kv_cache": 0.05, "max_num_seqs": 8}


def pool(folder: Path, *models: Any, **options: Any) -> VLLMPool:
    return VLLMPool(build(Options, {"models": list(models), "cache": str(folder), **QUICK, **options}))


def local(folder: Path, *models: str) -> TransformersPool:
    return TransformersPool(TransformersOptions(models=models, dtype="float32", device="cpu", cache=str(folder)))


def ask(source: Any, work: Any) -> Any:
    async def run() -> Any:
        async with open_session(sampling=Sampling(max_new_tokens=8)) as session:
            return await work(Context(session, phase="fit"), source.models())

    return asyncio.run(run())


def test_embeddings_are_those_of_transformers(tmp_path: Path) -> None:
    base = write(tmp_path / "base")
    texts = ["the quick brown fox", "a", "what is the capital of France?"]

    async def work(context: Context, models: Any) -> Any:
        return await context.embed(models[0], texts)

    mine = ask(pool(tmp_path, {"model": base, "task": "embed"}), work)
    for a, b in zip(mine, ask(local(tmp_path, base), work), strict=True):
        assert a == pytest.approx(b, abs=1e-3)
    assert not multiprocessing.active_children()  # the worker process has ended with the run


def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    base = write(tmp_path / "base")
    tails = ["5", " Paris. Stop here.", "", "ital of France"]

    async def work(context: Context, models: Any) -> Any:
        chat = await context.score(models[0], "what is the cap", tails)
        return [*chat, *await context.score(models[0], "what is the cap", tails, raw=True)]

    for one, other in zip(ask(pool(tmp_path, base), work), ask(local(tmp_path, base), work), strict=True):
        assert one.token_ids == other.token_ids
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-3)


def test_rewards_are_those_of_transformers(tmp_path: Path) -> None:
    judge = write(tmp_path / "judge", 3, classifier=True, num_labels=2)
    talk = (Message("user", "what is"), Message("assistant", "Paris"))

    async def work(context: Context, models: Any) -> Any:
        return await context.reward(models[0], talk)

    assert ask(pool(tmp_path, judge), work) == pytest.approx(ask(local(tmp_path, judge), work), abs=1e-3)


def test_models_that_take_turns_are_never_there_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = [write(tmp_path / name, seed) for seed, name in enumerate(("one", "two"))]
    real = pool_module.plan
    monkeypatch.setattr(
        pool_module, "plan", lambda *a, **k: {key: Place(lane=p.lane, turns=True) for key, p in real(*a, **k).items()}
    )
    alive: list[int] = []

    async def work(context: Context, models: Any) -> Any:
        async def one(model: Any, prompt: str) -> str:
            reply = await context.generate(model, prompt)
            alive.append(len(multiprocessing.active_children()))
            return reply.text

        return await context.gather(one(m, p) for p in ("hello", "what is", "the lazy dog") for m in models)

    source = pool(tmp_path, *bases)
    mine = ask(source, work)
    assert source.engine.loads == 2 and max(alive) <= 1
    assert mine == ask(local(tmp_path, *bases), work)


def test_a_checkpoint_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    base = write(tmp_path / "base")

    async def work(context: Context, models: Any) -> Any:
        jobs = (context.generate(models[0], p) for p in ("a", "b"))
        return await context.gather(jobs, tolerate=ConfigError)

    errors = ask(pool(tmp_path, base, max_model_len=100_000), work)
    assert all(isinstance(e, ConfigError) for e in errors) and "\n" not in str(errors[0])
    assert "vLLM cannot open" in str(errors[0])
