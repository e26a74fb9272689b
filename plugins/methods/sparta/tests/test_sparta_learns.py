"""Sparta with weights: DPO on what duels showed moves weak models towards a strong one, on questions that they never saw."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import random_checkpoints
import training_here

from moco_core import Answer, Example, Metric, NoOptions, Pool, Question, Sampling, Score, build
from moco_method_sparta.method import Sparta
from moco_method_sparta.options import Options
from moco_toolkit_authoring import open_state
from moco_toolkit_training import Demonstration, Sft

transformers = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
pytestmark = pytest.mark.slow  # six trainings of tiny models

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 1}
SAID = {"weak": "The lazy dog.", "strong": "The answer is 5.", "weaker": "Say apple."}
RIGHT = SAID["strong"]
WORDS = (
    "fox",
    "dog",
    "Paris",
    "ten",
    "apple",
    "pear",
    "plum",
    "fruit",
    "quick",
    "lazy",
    "over",
    "away",
    "what",
    "first",
    "the",
)
EXAMPLES = [Example(question=Question(id=word, prompt=f"Say {word}"), references=(RIGHT,)) for word in WORDS]
DEV, UNSEEN = EXAMPLES[:12], EXAMPLES[12:]
OPTIONS = {
    "num_iterations": 1,
    "lora_r": 0,
    "learning_rate": 4e-3,
    "beta": 0.02,
    "batch": 4,
    "epochs": 8,
    "temperature": 1.0,
}


class Says(Metric[NoOptions]):
    """Right is what begins as the right answer does."""

    def read(self, question: Question, text: str) -> Answer:
        return Answer(key=text, text=text, status="parsed")

    def score(self, example: Example, reply: Any, context: Any) -> Score:
        return Score(value=float(reply.text.startswith("The answer is")))


async def knows(model: Any, question: Question, reply: str, options: Any, context: Any) -> float:
    """A judge that tells right from wrong, which no model of this size could."""
    return 9.0 if reply.startswith("The answer is") else 2.0


def test_held_out_preferences_turn_and_the_strong_model_wins(tmp_path, monkeypatch):
    monkeypatch.setattr("moco_toolkit_duels.combat.judge", knows)
    jobs, rounds = training_here.train_here(monkeypatch), []
    folders = [random_checkpoints.write(tmp_path / name, seed, **SMALL) for seed, name in enumerate(SAID)]
    local = {"models": folders, "device": "cpu", "cache": str(tmp_path / "hashes")}
    pool = transformers.TransformersPool(build(transformers.Options, local)).pool

    async def margin(context: Any, model: Any, question: Question, own: str) -> float:
        right, other = await context.score(model, question, [RIGHT, own])
        return right.logprob - other.logprob

    async def work() -> None:
        sampling = Sampling(temperature=0.0, max_new_tokens=8)
        async with open_state(metric=Says(NoOptions()), sampling=sampling) as state:
            notes: list[Any] = []
            state.on_note = lambda phase, note: notes.append(note)
            context = state.context("fit")
            models = []
            for model, (name, text) in zip(pool, SAID.items(), strict=True):
                rows = [Demonstration.of(e.question, text) for e in DEV]
                job = Sft(rows=rows, lora=None, learning_rate=1e-2, epochs=10, batch=4, min_steps=1)
                models.append(await context.train(model, job, name=name))
            train = type(context).train

            async def seen(self: Any, model: Any, job: Any, *, name: str = "") -> Any:
                rounds.append((model, await train(self, model, job, name=name)))
                return rounds[-1][1]

            monkeypatch.setattr(type(context), "train", seen)
            system = await Sparta(build(Options, OPTIONS)).fit(Pool(models), DEV, context)
            ratings = next(n["ratings"] for n in notes if "ratings" in n)
            assert max(ratings, key=ratings.__getitem__) == "strong" and system.model.name == "strong"
            assert ratings["strong"] > 100 > max(ratings["weak"], ratings["weaker"])
            for before, after in rounds:
                own = SAID[before.name]
                for example in UNSEEN if own != RIGHT else ():
                    first, last = [await margin(context, m, example.question, own) for m in (before, after)]
                    assert first < -10 and last > 3, (before.name, example.id, first, last)

    asyncio.run(work())
    assert [job.service for job in jobs] == ["sft"] * 3 + ["dpo"] * 3
