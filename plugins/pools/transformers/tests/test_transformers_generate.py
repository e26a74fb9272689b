"""Generation: equality with transformers itself, independence of the batch, stops, templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers_tiny import ask, checkpoint, pool, serve

from moco_core.models import Model

TEXTS = [
    "the quick brown",
    "what is",
    "numbers 0 1 2 3 4 5",
    "a",
    "capital of France? The capital is Paris",
    "dog and runs",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {
        "llama": checkpoint(root / "llama"),
        "qwen2": checkpoint(root / "qwen2", "qwen2"),
        "gpt2": checkpoint(root / "gpt2", "gpt2"),
        "mistral": checkpoint(root / "mistral", "mistral", sliding_window=6),
        "qwen2-mixed": checkpoint(
            root / "mixed",
            "qwen2",
            use_sliding_window=True,
            sliding_window=5,
            layer_types=["full_attention", "sliding_attention"],
        ),
    }


def opened(folder: str, tmp_path: Path, **options: Any) -> Model:
    return pool(folder, cache=tmp_path, **options).models()[0]


def reference(folder: str, text: str, n: int) -> list[int]:
    """Return what transformers' own generate emits greedily."""
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tok = AutoTokenizer.from_pretrained(folder)
    ids = tok(text, return_tensors="pt")["input_ids"]
    out = module.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=n,
        pad_token_id=1,
        eos_token_id=[1, 2],  # </s>, and the end of turn that the template writes
    )
    return out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "mistral", "qwen2-mixed"])
def test_greedy_equals_generate(folders: dict[str, str], kind: str, tmp_path: Path) -> None:
    model = opened(folders[kind], tmp_path)
    results = serve(model, [ask(model, t, max_new_tokens=20 + i) for i, t in enumerate(TEXTS)])
    for i, (text, result) in enumerate(zip(TEXTS, results, strict=True)):
        assert list(result.token_ids) == reference(folders[kind], text, 20 + i)
    with model.engine.use(model) as (loaded,):
        assert loaded.slab() is not None  # the fast path is what was tested
