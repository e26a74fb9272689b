"""LLM-Blender with weights: a head and a fuser are trained on tiny random Llamas, saved, moved and opened again, to the bit."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import random_checkpoints
import training_here

from moco_core import Answer, Example, Metric, NoOptions, Question, Sampling, Score
from moco_core.models import Pool
from moco_core.options import build, plain
from moco_method_llm_blender.method import LlmBlender
from moco_method_llm_blender.options import Options
from moco_pool_transformers.pool import Options as PoolOptions
from moco_pool_transformers.pool import TransformersPool
from moco_toolkit_authoring import open_state
from moco_toolkit_training import pairing

pytestmark = pytest.mark.slow  # the libraries of the training take a good part of a minute to import

DEV = [Example(question=Question(id=f"d{i}", prompt=f"Say {i}"), references=("The answer is 5.",)) for i in range(6)]
OPTIONS = {
    "ranker": "pair_head", "ranker_epochs": 2, "train_fuser": True, "fuser_epochs": 1, "dev_sample": 2, "judge": 0, "fuser": 1,
    "ranker_learning_rate": 1e-2, "fuser_learning_rate": 1e-2, "lora_r": 4,
}  # fmt: skip


class Even(Metric[NoOptions]):
    """Right is what has an even number of characters: a random model's replies are, half of the time."""

    def read(self, question, text):
        return Answer(key=str(len(text) % 2), text=text, status="parsed") if text else Answer()

    def score(self, example, reply, context):
        return Score(value=float(len(reply.text) % 2 == 0))


def pool_at(root: Path, cache: Path) -> Pool:
    models = [str(root / name) for name in ("one", "two")]
    return TransformersPool(build(PoolOptions, {"models": models, "device": "cpu", "cache": str(cache)})).pool


def method() -> LlmBlender:
    return LlmBlender(build(Options, OPTIONS))


async def computed(system) -> list[list[float]]:
    """What ranker and fuser compute for a text, every bit of it."""
    async with open_state() as state:
        context = state.context("fit")
        read = await context.reward(system.ranker.model, pairing("Say 1", "The answer is 5.", "lazy dog"))
        (score,) = await context.score(system.writer, "The quick brown fox", ["The answer is 5."])
        return [list(read), list(score.token_logprobs)]


def restored(root: Path, saved: Path, cache: Path):
    return method().restore(pool_at(root, cache), json.loads((saved / "state.json").read_text()), saved)


def opened_elsewhere(root: str, saved: str, cache: str) -> None:
    """What another process finds."""
    print(json.dumps(asyncio.run(computed(restored(Path(root), Path(saved), Path(cache))))))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """What a fitted system computes, and the folder that it was saved to and that was moved since."""
    root = tmp_path_factory.mktemp("llm_blender")
    for number, name in enumerate(("one", "two")):
        random_checkpoints.write(root / name, hidden_size=32, intermediate_size=64, num_attention_heads=1, seed=number)
    patch, saved = pytest.MonkeyPatch(), root / "saved"
    jobs = training_here.train_here(patch)

    async def fit():
        settings = {"metric": Even(NoOptions()), "sampling": Sampling(temperature=1.0, max_new_tokens=8)}
        async with open_state(**settings) as state:
            system = await method().fit(pool_at(root, root / "hashes"), DEV, state.context("fit"))
            saved.mkdir()
            system.save_files(saved)
            (saved / "state.json").write_text(json.dumps(plain(system.state())))
            return await computed(system)

    try:
        found = asyncio.run(fit())
    finally:
        patch.undo()
    shutil.move(saved, root / "moved")
    return root, found, jobs


def test_after_its_folder_moved_it_computes_the_same_bits(fitted):
    root, found, jobs = fitted
    assert (jobs[0].service, jobs[-1].service) == ("rank", "sft")
    again = restored(root, root / "moved", root / "hashes")
    assert asyncio.run(computed(again)) == found
    assert (root / "moved" / "fuser" / "adapter_config.json").exists()  # an adapter stays one


def test_in_another_process_it_computes_the_same_bits(fitted):
    root, found, _ = fitted
    given = ", ".join(repr(str(path)) for path in (root, root / "moved", root / "elsewhere"))
    script = f"import {Path(__file__).stem} as t; t.opened_elsewhere({given})"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert json.loads(done.stdout.splitlines()[-1]) == found
