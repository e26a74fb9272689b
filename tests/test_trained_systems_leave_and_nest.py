"""What methods train of their speakers leaves as what it is, answers alike wherever it is opened, and is a member of a vote."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import random_checkpoints
import training_here

import moco_core as moco
from moco_core import Answer, Metric, NoOptions, Score, cli, read_records
from moco_core.catalogue import installed

pytestmark = pytest.mark.slow  # the libraries of the training take most of half a minute to import
pytest.importorskip("moco_pool_transformers", reason="the engine is a plugin of its own")

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 1}
LORA = {"lora_r": 4, "batch": 4}
METHODS: dict[str, dict[str, Any]] = {
    "agglm": {
        "m": 3, "sets_per_question": 1, "checkpoints": 1, "num_generations": 2, "learning_rate": 1e-2, **LORA,
    },
    "sparta": {
        "num_iterations": 1, "judging": "expected", "learning_rate": 1e-2, "temperature": 1.0, "max_new_tokens": 6, **LORA,
    },
    "multiagent_finetuning": {
        "num_agents": 2, "summarize": False, "learning_rate": 1e-2, "epochs": 1, "min_examples": 1, "max_new_tokens": 6, **LORA,
    },
    "llm_blender": {
        "ranker": "pair_head", "judge": 0, "fuser": 1, "ranker_epochs": 1, "train_fuser": True, "fuser_epochs": 1,
        "ranker_learning_rate": 1e-2, "fuser_learning_rate": 1e-2, "dev_sample": 0, **LORA,
    },
}  # fmt: skip
ADAPTERS = {"agglm": 1, "sparta": 1, "multiagent_finetuning": 4, "llm_blender": 1}
"""How many of what a system holds are adapters; the head of llm_blender's ranker is a whole checkpoint."""


class Even(Metric[NoOptions]):
    """Right is what has an even number of characters: a random model's replies are, half of the time."""

    def read(self, question: Any, text: str) -> Answer:
        return Answer(key=str(len(text) % 2), text=text, status="parsed") if text else Answer()

    def score(self, example: Any, reply: Any, context: Any) -> Score:
        return Score(value=float(len(reply.text) % 2 == 0), answer=self.read(example.question, reply.text))


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "cache" / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Even, "even")
    yield


@pytest.mark.parametrize("name", METHODS)
def test_a_trained_system_leaves_with_its_adapters_and_votes(
    name: str, even: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = training_here.train_here(monkeypatch)
    if name == "sparta":  # random models answer nothing better than others: what was trained is chosen all the same
        monkeypatch.setattr("moco_method_sparta.method.select", _last)
    folders = [random_checkpoints.write(tmp_path / n, seed, **SMALL) for seed, n in enumerate(("one", "two", "three"))]
    local = {"name": "transformers", "models": folders, "device": "cpu"}
    common: dict[str, Any] = {
        "dataset": "skills", "metric": "even", "sampling": {"temperature": 0.0, "max_new_tokens": 8}, "dev": 8, "test": 3,
    }  # fmt: skip
    run = moco.run(pool=local, method={"name": name, **METHODS[name]}, baselines=False, **common).runs[0]
    assert jobs
    said = [row["reply"]["text"] for row in read_records(run.folder)]

    assert cli._run(["export", str(run.folder), "--to", "hub-folder", "-f", "left"]) == 0
    left = tmp_path / "left"
    assert len(list(left.rglob("adapter_config.json"))) == ADAPTERS[name]
    whole = {path.name for path in left.rglob("*.safetensors")} - {"adapter_model.safetensors"}
    assert whole == ({"model.safetensors"} if name == "llm_blender" else set())
    members: list[Any] = [{"name": "systems", "systems": [{"run": str(run.folder), "name": "member"}]}]
    if name == "sparta":  # the system is one model: what left is an adapter on its base, for anybody
        members.append({**local, "models": [{"model": folders[2], "adapter": str(left), "name": "adapter"}]})
    else:
        shutil.move(run.folder, tmp_path / "elsewhere")  # what left needs nothing of the run
        members = [{"name": "systems", "systems": [{"run": str(left), "name": "member"}]}]

    # beside two plain models, in a vote: it answers every question as it did alone
    pools = {"name": "mixed", "pools": [*members, {**local, "models": folders[:2]}]}
    vote = moco.run(pool=pools, method="majority_vote", baselines=False, **common).runs[0]
    for row, text in zip(read_records(vote.folder), said, strict=True):
        told = {c["model"]: c["said"]["text"] for c in row["calls"]}
        assert told["member"] == text and told.get("adapter", text) == text


async def _last(rounds: Any, held: Any, context: Any) -> Any:
    from moco_toolkit_duels import Candidate, Selection

    own = tuple(Candidate(index=i, iteration=len(rounds) - 1, model=model) for i, model in enumerate(rounds[-1]))
    return Selection(best=own[-1], own=own, score=0.0)
