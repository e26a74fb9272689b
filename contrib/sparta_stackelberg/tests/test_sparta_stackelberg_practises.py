"""Sparta with a leader on real tiny models: GRPO with the others' scores as rewards, saved and opened again to the bit."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import random_checkpoints
import training_here

from moco_core import Example, Question, Sampling, build
from moco_method_sparta_stackelberg.method import SpartaStackelberg
from moco_method_sparta_stackelberg.options import Options
from moco_toolkit_authoring import open_state
from moco_toolkit_duels import Candidate, Selection

transformers = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
pytestmark = pytest.mark.slow  # the libraries of the training take most of half a minute to import

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 1}
OPTIONS = {
    "training_algorithm": "grpo", "judging": "expected", "num_iterations": 2, "num_duels_per_iteration": 4, "group": 4,
    "batch": 4, "learning_rate": 1e-2, "lora_r": 4, "max_new_tokens": 6,
}  # fmt: skip
DEV = [Example(question=Question(id=str(i), prompt=f"Say {i}."), references=("5",)) for i in range(5)]


def opened(folders: list[str], cache: Path) -> Any:
    options = {"models": folders, "device": "cpu", "cache": str(cache)}
    return transformers.TransformersPool(build(transformers.Options, options)).pool


async def _last(rounds: Any, held: Any, context: Any) -> Selection:
    own = tuple(Candidate(index=i, iteration=len(rounds) - 1, model=model) for i, model in enumerate(rounds[-1]))
    return Selection(best=own[-1], own=own, score=0.0)


def test_two_rounds_of_practice_train_every_model_and_are_opened_as_trained(tmp_path, monkeypatch):
    folders = [
        random_checkpoints.write(tmp_path / name, seed, **SMALL) for seed, name in enumerate(("one", "two", "three"))
    ]
    jobs = training_here.train_here(monkeypatch)
    monkeypatch.setattr("moco_method_sparta_stackelberg.method.select", _last)  # nobody random is better than another
    method, notes = SpartaStackelberg(build(Options, OPTIONS)), []

    async def scored(context, model) -> list[float]:
        (found,) = await context.score(model, "Say a word.", ["The answer is 5."])
        return list(found.token_logprobs)

    async def work() -> None:
        async with open_state(sampling=Sampling(temperature=0.0, max_new_tokens=6)) as run:
            run.on_note = lambda phase, note: notes.append(note)
            context, pool = run.context("fit"), opened(folders, tmp_path / "hashes")
            system = await method.fit(pool, DEV, context)
            (tmp_path / "saved").mkdir()
            system.save_files(tmp_path / "saved")
            state = json.loads(json.dumps(system.state()))
            shutil.move(tmp_path / "saved", tmp_path / "moved")
            again = method.restore(opened(folders, tmp_path / "hashes"), state, tmp_path / "moved")
            assert system.outcome == "trained" and system.model.name == "three-stackelberg2" and system.model.adapter
            assert await scored(context, again.model) == await scored(context, system.model)
            assert await scored(context, again.model) != await scored(context, pool[2])

    asyncio.run(work())
    assert {job.service for job in jobs} == {"grpo"} and len(jobs) >= 4
    rewards = [n["reward"] for n in notes if "reward" in n and "step" in n]
    assert len(rewards) >= len(jobs) and all(0 <= reward <= 1 for reward in rewards)
    assert len(set(rewards)) > 1  # judges' expected scores, in tenths of their range
