"""A session of one model says what ``generate`` says: the same scores, the same choices, at equal seeds."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers_tiny import ask, checkpoint, pool, serve

from moco_core.models import Model
from moco_core.runtime.cache import Cache
from moco_core.types import Sampling
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding import open_session

TEXTS = ["the quick brown", "numbers 0 1 2 3 4 5", "what is the capital of France?"]
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 1.0},
    "top-k": {"temperature": 1.2, "top_k": 20},
    "top-p": {"temperature": 0.9, "top_p": 0.8},
    "min-p": {"temperature": 1.5, "min_p": 0.05},
    "all": {"temperature": 0.8, "top_k": 10, "top_p": 0.9, "min_p": 0.02},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    out = {
        "llama": checkpoint(root / "llama"),
        "granite": checkpoint(root / "granite", "granite", logits_scaling=3.0),
        "mistral": checkpoint(root / "mistral", "mistral", sliding_window=6),
        "ties": checkpoint(root / "ties", tie_word_embeddings=False),
    }
    file = root / "ties" / "model.safetensors"
    tensors = load_file(file)
    head = tensors["lm_head.weight"]
    # four tokens in a row have one logit: every border of a filter lies among ties
    tensors["lm_head.weight"] = head[torch.arange(len(head)) // 4 * 4].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    return out


def drafted(model: Model, text: str, seed: int, settings: Sampling, chunk: int) -> tuple[tuple[int, ...], list[float]]:
    """What a session writes after a raw prompt, in drafts of ``chunk`` tokens, and its log-probabilities."""

    async def work() -> tuple[tuple[int, ...], list[float]]:
        async with open_state(sampling=settings, cache=Cache(None)) as run:
            session = await open_session(run.context(phase="respond"), model, text, raw=True)
            draft = await session.draft(
                settings.max_new_tokens, sampling=settings, generator=random.Random(seed), chunk=chunk
            )
            return draft.ids, list(draft.logprobs)

    return asyncio.run(work())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "granite", "mistral", "ties"])
def test_a_session_says_what_generate_says(folders: dict[str, str], kind: str, dtype: str, tmp_path: Path) -> None:
    (model,) = pool(folders[kind], cache=tmp_path, dtype=dtype).models()
    for changes in SETTINGS.values():
        settings = Sampling(max_new_tokens=12, **changes)
        for seed, text in enumerate(TEXTS):
            (said,) = serve(model, [ask(model, text, seed, max_new_tokens=12, **changes)])
            ids, logprobs = drafted(model, text, seed, settings, chunk=5 if seed else 16)
            n = len(said.token_ids) - (said.finish_reason == "eos")  # an end token is no part of a draft
            assert said.token_ids[:n] == ids
            assert logprobs == list(said.token_logprobs[:n])
