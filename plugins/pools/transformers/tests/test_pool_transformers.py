"""The conformance checks, and the engine behind the core's scheduler."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers_tiny import checkpoint, pool

from moco_core.errors import PromptTooLong
from moco_core.models import Pool
from moco_core.types import Question, Sampling
from moco_toolkit_authoring import pool_checks
from moco_toolkit_authoring.harness import open_state

_ROOT = tempfile.TemporaryDirectory(prefix="moco-transformers-")
_MODELS = [
    checkpoint(Path(_ROOT.name) / "chat"),
    checkpoint(Path(_ROOT.name) / "plain", "gpt2", seed=1, template=None),
    checkpoint(Path(_ROOT.name) / "judge", "reward", seed=2, num_labels=1),
]

test_conformance = pool_checks(
    "transformers", settings=({"models": _MODELS, "device": "cpu", "cache": _ROOT.name},), models=3
)


def ask_all(models: Pool, sampling: Sampling, questions: int, **settings: Any) -> list[list[Any]]:
    """Return what every model says to every question, errors as values."""

    async def work() -> list[list[Any]]:
        async with open_state(seed=7, sampling=sampling, **settings) as opened:

            async def one(q: int) -> list[Any]:
                question = Question(id=str(q), prompt=" ".join(["what is the capital"] * (1 + q % 9)))
                context = opened.context("respond", question)
                return await context.gather((context.generate(m, question) for m in models), tolerate=PromptTooLong)

            return await asyncio.gather(*(one(q) for q in range(questions)))

    return asyncio.run(work())


def test_two_models_through_the_scheduler(tmp_path: Path) -> None:
    source = pool(*_MODELS[:2], cache=tmp_path)
    replies = ask_all(Pool(source.models()), Sampling(temperature=0.8, max_new_tokens=12), 20)
    again = ask_all(
        Pool(pool(*_MODELS[:2], cache=tmp_path, max_batch=3).models()), Sampling(temperature=0.8, max_new_tokens=12), 20
    )
    assert [[r.token_ids for r in row] for row in replies] == [[r.token_ids for r in row] for row in again]
    assert source.engine.resident() == []  # closed with the run


def test_one_prompt_too_long_loses_itself_alone(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", max_position_embeddings=64)
    replies = ask_all(Pool(pool(folder, cache=tmp_path).models()), Sampling(max_new_tokens=16), 9)
    kinds = [isinstance(row[0], PromptTooLong) for row in replies]
    assert kinds[0] is False and kinds[-1] is True


def test_memory_that_does_not_suffice_makes_batches_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moco_toolkit_decoding.runner import ModelRunner

    models = Pool(pool(_MODELS[0], cache=tmp_path).models())
    want = ask_all(models, Sampling(max_new_tokens=6), 12)
    real, sizes = ModelRunner.advance, []

    def small(self: ModelRunner, cache: Any, tokens: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return real(self, cache, tokens)

    monkeypatch.setattr(ModelRunner, "advance", small)
    got = ask_all(models, Sampling(max_new_tokens=6), 12)
    assert [r[0].token_ids for r in got] == [r[0].token_ids for r in want]
    assert max(sizes) > 3 >= sizes[-1]  # however the calls arrived
