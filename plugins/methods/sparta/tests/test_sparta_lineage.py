"""Sparta on real tiny models: what a saved system answers with is what was trained, round after round, wherever it lies."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import random_checkpoints
import training_here

import moco_core as moco
from moco_core import Example, Method, Question, Sampling, build, read_records
from moco_method_sparta.method import Sparta
from moco_method_sparta.options import Options
from moco_toolkit_authoring import open_state
from moco_toolkit_duels import Candidate, Selection

transformers = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 1}
SETTINGS: dict[str, Any] = {
    "judging": "expected",
    "num_iterations": 2,
    "learning_rate": 0.01,
    "lora_r": 4,
    "batch": 2,
    "temperature": 1.0,
    "max_new_tokens": 6,
}
TEXTS = ("Say a word.", "What is 2 + 3?", "Which fruit came first?", "Repeat: plum.", "the quick brown")
DEV = [Example(question=Question(id=str(i), prompt=text), references=("5",)) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("models")
    return [random_checkpoints.write(root / name, seed, **SMALL) for seed, name in enumerate(("one", "two", "three"))]


@pytest.fixture
def last_round_wins(monkeypatch):
    """Choose the last model of the last round: random models answer nothing rightly, and the initial ones would be chosen."""

    async def choose(rounds, held, context) -> Selection:
        own = tuple(Candidate(index=i, iteration=len(rounds) - 1, model=model) for i, model in enumerate(rounds[-1]))
        return Selection(best=own[-1], own=own, score=0.0)

    monkeypatch.setattr("moco_method_sparta.method.select", choose)


def opened(folders: list[str], cache: Path) -> Any:
    options = {"models": folders, "device": "cpu", "cache": str(cache)}
    return transformers.TransformersPool(build(transformers.Options, options)).pool


def logits(model) -> Any:
    import torch

    with model.engine.use(model) as (loaded,):
        return loaded.run(input_ids=torch.tensor([loaded.encode("the quick brown fox")])).logits.clone()


def test_after_two_rounds_a_moved_system_is_the_model_that_was_trained(folders, tmp_path, monkeypatch, last_round_wins):
    import torch

    torch.set_num_threads(1)
    training_here.train_here(monkeypatch)
    method: Method[Any] = Sparta(build(Options, SETTINGS))
    notes: list[Any] = []

    async def work() -> None:
        async with open_state(sampling=Sampling(temperature=0.0, max_new_tokens=6)) as run:
            run.on_note = lambda phase, note: notes.append(note)
            pool = opened(folders, tmp_path / "hashes")
            context = run.context("fit")
            system = await method.fit(pool, DEV, context)
            model = system.model
            assert model.adapter and model.name == "three-sparta2" and model.sources[0].name == "three-sparta1"
            assert model.base == model.sources[0].base and model.base
            (tmp_path / "saved").mkdir()
            system.save_files(tmp_path / "saved")
            state = json.loads(json.dumps(system.state()))
            shutil.move(tmp_path / "saved", tmp_path / "moved")
            again = method.restore(opened(folders, tmp_path / "hashes"), state, tmp_path / "moved").model
            assert again.fingerprint == model.fingerprint and again.base == model.base and again.adapter
            found = await asyncio.to_thread(lambda: [logits(m) for m in (again, model, model.sources[0], pool[2])])
            assert torch.equal(found[0], found[1])
            assert not torch.equal(found[1], found[2]) and not torch.equal(found[2], found[3])

    asyncio.run(work())
    first = {n["training"]: n["first_loss"] for n in notes if "first_loss" in n}
    assert set(first) == {f"{name}-sparta{number}" for name in ("one", "two", "three") for number in (1, 2)}
    assert all(loss == pytest.approx(math.log(2), abs=1e-6) for loss in first.values())  # every round starts at itself
    assert {n["goes_on"] for n in notes if "goes_on" in n and n["training"].endswith("2")} == {True}


OPEN = """
import json, sys, torch
import moco_core as moco
torch.set_num_threads(1)
with moco.load(sys.argv[1]) as loaded:
    text = loaded.ask("Say a word.").text
    model = loaded._entered()[1].system.model
    with model.engine.use(model) as (one,):
        logits = one.run(input_ids=torch.tensor([one.encode("the quick brown fox")])).logits
print(json.dumps({"text": text, "name": model.name, "logits": [x.hex() for x in logits.double().flatten().tolist()]}))
"""


@pytest.mark.slow
def test_after_three_rounds_a_new_process_opens_a_moved_run_without_its_cache(
    folders, tmp_path, monkeypatch, last_round_wins
):
    training_here.train_here(monkeypatch)
    config = {
        "pool": {"name": "transformers", "models": folders, "device": "cpu"},
        "method": {"name": "sparta", **SETTINGS, "num_iterations": 3},
        "dataset": "skills",
        "sampling": {"temperature": 0.0, "max_new_tokens": 6},
        "dev": 5,
        "test": 1,
    }
    run = moco.run(cache=tmp_path / "cache" / "calls.sqlite", out=str(tmp_path / "runs"), **config)["sparta"]
    told = [json.loads(opened_in_new_process(run.folder))]
    shutil.move(run.folder, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "cache")
    told.append(json.loads(opened_in_new_process(tmp_path / "elsewhere")))
    assert told[0] == told[1] and told[0]["name"] == "three-sparta3"


def opened_in_new_process(folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", OPEN, str(folder)], capture_output=True, text=True, check=True)
    return done.stdout


KILLED = """
import functools, json, sys
import moco_core as moco
from moco_toolkit_training import process
sys.path.append(sys.argv[3])
from training_here import run_here
process.run = functools.partial(run_here, interval=0.0)
moco.run(**json.loads(sys.argv[1]), cache=__import__("pathlib").Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_fit_goes_on_and_ends_where_an_uninterrupted_one_ends(folders, tmp_path, monkeypatch):
    training_here.train_here(monkeypatch)

    def config(name: str) -> dict[str, Any]:
        return {
            "pool": {"name": "transformers", "models": folders, "device": "cpu"},
            "method": {"name": "sparta", **SETTINGS},
            "dataset": "skills",
            "sampling": {"temperature": 0.0, "max_new_tokens": 6},
            "dev": 5,
            "test": 2,
            "out": str(tmp_path / name),
        }

    straight = moco.run(cache=tmp_path / "straight" / "calls.sqlite", **config("straight"))["sparta"]
    given = (json.dumps(config("killed")), tmp_path / "cache" / "calls.sqlite", Path(training_here.__file__).parent)
    command = [sys.executable, "-c", KILLED, *map(str, given)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("cache/**/adapter_model.safetensors")):  # until the first model is in training
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = moco.run(cache=tmp_path / "cache" / "calls.sqlite", **config("killed"))["sparta"]

    def outcome(run) -> Any:
        state = json.loads((run.folder / "system" / "system.json").read_text("utf-8"))["state"]
        return state, [record["reply"] for record in read_records(run.folder)]

    assert outcome(again) == outcome(straight)
