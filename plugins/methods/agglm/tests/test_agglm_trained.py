"""AggLM with weights: a tiny random Llama is trained by GRPO, saved, moved and opened again, to the bit."""

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
from moco_core.options import build, plain
from moco_method_agglm.method import Agglm
from moco_method_agglm.options import Options
from moco_pool_transformers.pool import Options as PoolOptions
from moco_pool_transformers.pool import TransformersPool
from moco_toolkit_authoring import open_state
from moco_toolkit_checkpoints.local import local_engine

pytestmark = pytest.mark.slow  # the libraries of the training take most of half a minute to import

DEV = [Example(question=Question(id=f"d{i}", prompt=f"Say {i}"), references=("x",)) for i in range(5)]
OPTIONS = {
    "m": 2, "sets_per_question": 1, "checkpoints": 2, "num_generations": 4, "batch": 4, "epochs": 1.0, "easy_ratio": 1.0,
    "learning_rate": 1e-2, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "eval_temperature": 1.0,
}  # fmt: skip
CONTINUATIONS = ["The answer is 5.", "lazy dog"]


class Even(Metric[NoOptions]):
    """Right is what has an even number of characters: a random model's replies are, half of the time."""

    def read(self, question, text):
        return Answer(key=str(len(text) % 2), text=text, status="parsed") if text else Answer()

    def score(self, example, reply, context):
        return Score(value=float(len(reply.text) % 2 == 0))


def pool_at(base: Path, cache: Path) -> TransformersPool:
    return TransformersPool(build(PoolOptions, {"models": [str(base)], "device": "cpu", "cache": str(cache)}))


def method() -> Agglm:
    return Agglm(build(Options, OPTIONS))


async def scores(model) -> list[list[float]]:
    """What a model computes for a text, every bit of it."""
    async with open_state() as state:
        found = await state.context("fit").score(model, "The quick brown fox", CONTINUATIONS)
        return [list(score.token_logprobs) for score in found]


def restored(base: Path, saved: Path, cache: Path):
    pool = pool_at(base, cache).pool
    return method().restore(pool, json.loads((saved / "state.json").read_text()), saved)


def opened_elsewhere(base: str, saved: str, cache: str) -> None:
    """What another process finds."""
    system = restored(Path(base), Path(saved), Path(cache))
    print(json.dumps(asyncio.run(scores(system.reader))))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A system that was fitted, its scores, and the folder that it was saved to and that was moved since."""
    root = tmp_path_factory.mktemp("agglm")
    base = Path(random_checkpoints.write(root / "base", hidden_size=32, intermediate_size=64, num_attention_heads=1))
    saved = root / "saved"
    patch = pytest.MonkeyPatch()
    training_here.train_here(patch)
    pool = pool_at(base, root / "hashes").pool

    async def fit():
        settings = {"metric": Even(NoOptions()), "sampling": Sampling(temperature=1.0, max_new_tokens=8)}
        async with open_state(**settings) as state:
            notes: list = []
            state.on_note = lambda phase, note: notes.append(note)
            system = await method().fit(pool, DEV, state.context("fit"))
            saved.mkdir()
            system.save_files(saved)
            (saved / "state.json").write_text(json.dumps(plain(system.state())))
            return system, await scores(system.reader), notes

    try:
        system, computed, notes = asyncio.run(fit())
    finally:
        patch.undo()
    shutil.move(saved, root / "moved")
    return root, base, system, computed, notes


def test_grpo_trained_an_adapter_on_the_metrics_rewards(fitted):
    root, _, system, computed, notes = fitted
    steps = [n for n in notes if "training" in n and "step" in n]
    assert len(steps) >= 2 and all(0 <= n["reward"] <= 1 for n in steps)
    assert system.trained is not None and (root / "moved" / "model" / "adapter_config.json").exists()
    assert computed != asyncio.run(scores(system.pool[0]))


def test_after_its_folder_moved_it_computes_the_same_bits(fitted, tmp_path):
    root, base, system, computed, _ = fitted
    again = restored(base, root / "moved", root / "hashes")
    assert asyncio.run(scores(again.reader)) == computed
    assert plain(again.state()) == plain(system.state())
    local_engine(again.reader).export(again.reader, tmp_path / "exported")  # as an adapter on its base, for peft
    assert (tmp_path / "exported" / "adapter_config.json").exists()


def test_in_another_process_it_computes_the_same_bits(fitted):
    root, base, _, computed, _ = fitted
    given = ", ".join(repr(str(path)) for path in (base, root / "moved", root / "h"))
    script = f"import {Path(__file__).stem} as t; t.opened_elsewhere({given})"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert json.loads(done.stdout.splitlines()[-1]) == computed
