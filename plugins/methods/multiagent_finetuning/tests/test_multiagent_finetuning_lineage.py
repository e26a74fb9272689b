"""Multi-agent fine-tuning on real tiny models: saved agents are those that were trained, iteration after iteration."""

from __future__ import annotations

import asyncio
import json
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
from moco_method_multiagent_finetuning.method import MultiagentFinetuning
from moco_method_multiagent_finetuning.options import Options
from moco_toolkit_authoring import open_state

transformers = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 1}
SETTINGS: dict[str, Any] = {
    "num_agents": 2,
    "iterations": 2,
    "summarize": False,
    "learning_rate": 0.01,
    "lora_r": 4,
    "epochs": 1,
    "batch": 2,
    "min_examples": 1,
    "max_new_tokens": 6,
}
TEXTS = ("Say a word.", "What is 2 + 3?", "Which fruit came first?", "Repeat: plum.")
DEV = [Example(question=Question(id=str(i), prompt=text), references=("5",)) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return random_checkpoints.write(tmp_path_factory.mktemp("models") / "base", **SMALL)


@pytest.fixture
def all_agree(monkeypatch):
    """Take every reply for the right answer: nothing can be read of what random models say."""
    monkeypatch.setattr("moco_toolkit_discussion.talk.ballots", lambda context, question, texts: [SAME for _ in texts])


SAME = moco.Answer(key="same", text="same", status="parsed")


def opened(folder: str, cache: Path) -> Any:
    options = {"models": [folder], "device": "cpu", "cache": str(cache)}
    return transformers.TransformersPool(build(transformers.Options, options)).pool


def logits(model) -> Any:
    import torch

    with model.engine.use(model) as (loaded,):
        return loaded.run(input_ids=torch.tensor([loaded.encode("the quick brown fox")])).logits.clone()


def test_after_two_iterations_moved_agents_are_those_that_were_trained(folder, tmp_path, monkeypatch, all_agree):
    import torch

    torch.set_num_threads(1)
    training_here.train_here(monkeypatch)
    method: Method[Any] = MultiagentFinetuning(build(Options, SETTINGS))
    notes: list[Any] = []

    async def work() -> None:
        async with open_state(sampling=Sampling(temperature=0.0, max_new_tokens=6)) as run:
            run.on_note = lambda phase, note: notes.append(note)
            pool = opened(folder, tmp_path / "hashes")
            system: Any = await method.fit(pool, DEV, run.context("fit"))
            trained = [*system.generators, *system.critics]
            names = [f"base-{n}-{part}2" for part in ("generator", "critic") for n in (0, 1)]
            assert [model.name for model in trained] == names and all(model.adapter for model in trained)
            assert len({model.base for model in trained}) == 1 and trained[0].base
            (tmp_path / "saved").mkdir()
            system.save_files(tmp_path / "saved")
            state = json.loads(json.dumps(system.state()))
            shutil.move(tmp_path / "saved", tmp_path / "moved")
            restored: Any = method.restore(opened(folder, tmp_path / "hashes"), state, tmp_path / "moved")
            again = [*restored.generators, *restored.critics]
            assert [model.fingerprint for model in again] == [model.fingerprint for model in trained]
            before = [model.sources[0] for model in trained]
            found = await asyncio.to_thread(lambda: [logits(m) for m in (*trained, *again, *before, pool[0])])
            assert all(torch.equal(a, b) for a, b in zip(found[:4], found[4:8], strict=True))
            assert not any(torch.equal(found[i], found[j]) for i in range(4) for j in (*range(i), *range(8, 13)))

    asyncio.run(work())
    assert {n["goes_on"] for n in notes if "goes_on" in n and n["training"].endswith("2")} == {True}
    losses = [(n["first_loss"], n["loss"]) for n in notes if "first_loss" in n and n["training"].endswith("1")]
    assert len(losses) == 4 and all(last < first for first, last in losses)


CHILD = """
import json, sys, torch
import moco_core as moco
torch.set_num_threads(1)
with moco.load(sys.argv[1]) as loaded:
    text = loaded.ask("Say a word.").text
    found = {}
    system = loaded._entered()[1].system
    for model in (*system.generators, *system.critics):
        with model.engine.use(model) as (one,):
            logits = one.run(input_ids=torch.tensor([one.encode("the quick brown fox")])).logits
        found[model.name] = [x.hex() for x in logits.double().flatten().tolist()]
print(json.dumps({"text": text, "found": found}))
"""


@pytest.mark.slow
def test_after_three_iterations_a_new_process_opens_a_moved_run_without_its_cache(
    folder, tmp_path, monkeypatch, all_agree
):
    training_here.train_here(monkeypatch)
    config = {
        "pool": {"name": "transformers", "models": [folder], "device": "cpu"},
        "method": {"name": "multiagent_finetuning", **SETTINGS, "iterations": 3},
        "dataset": "skills",
        "sampling": {"temperature": 0.0, "max_new_tokens": 6},
        "dev": 3,
        "test": 1,
        "out": str(tmp_path / "runs"),
    }
    run = moco.run(cache=tmp_path / "cache" / "calls.sqlite", **config)["multiagent_finetuning"]
    told = [json.loads(told_by_a_new_process(run.folder))]
    shutil.move(run.folder, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "cache")
    told.append(json.loads(told_by_a_new_process(tmp_path / "elsewhere")))
    assert told[0] == told[1]
    assert list(told[0]["found"]) == [f"base-{n}-{part}3" for part in ("generator", "critic") for n in (0, 1)]


def told_by_a_new_process(folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, check=True)
    return done.stdout


KILLED = """
import functools, json, pathlib, sys
import moco_core as moco
import moco_toolkit_discussion.talk as talk
from moco_toolkit_training import process
sys.path.append(sys.argv[3])
from training_here import run_here
talk.ballots = lambda context, question, texts: [moco.Answer(key="same", text="same", status="parsed") for _ in texts]
process.run = functools.partial(run_here, interval=0.0)
moco.run(**json.loads(sys.argv[1]), cache=pathlib.Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_fit_goes_on_and_ends_where_an_uninterrupted_one_ends(folder, tmp_path, monkeypatch, all_agree):
    training_here.train_here(monkeypatch)

    def config(name: str) -> dict[str, Any]:
        return {
            "pool": {"name": "transformers", "models": [folder], "device": "cpu"},
            "method": {"name": "multiagent_finetuning", **SETTINGS},
            "dataset": "skills",
            "sampling": {"temperature": 0.0, "max_new_tokens": 6},
            "dev": 3,
            "test": 2,
            "out": str(tmp_path / name),
        }

    label = "multiagent_finetuning"
    straight = moco.run(cache=tmp_path / "straight" / "calls.sqlite", **config("straight"))[label]
    given = (json.dumps(config("killed")), tmp_path / "cache" / "calls.sqlite", Path(training_here.__file__).parent)
    command = [sys.executable, "-c", KILLED, *map(str, given)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("cache/**/adapter_model.safetensors")):  # until the first model is in training
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = moco.run(cache=tmp_path / "cache" / "calls.sqlite", **config("killed"))[label]

    def outcome(run) -> Any:
        state = json.loads((run.folder / "system" / "system.json").read_text("utf-8"))["state"]
        return state, [record["reply"] for record in read_records(run.folder)]

    assert outcome(again) == outcome(straight)
