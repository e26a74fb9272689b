"""A tiny random Llama of width 32 on the transformers engine, and everything that trains it without a process of its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import random_checkpoints
import torch

from moco_core.models import Model
from moco_core.options import build
from moco_core.training import Trained, TrainingSite
from moco_pool_transformers.pool import Options, TransformersPool
from moco_pool_transformers.training import site_of
from moco_toolkit_training import (
    Classify,
    Demonstration,
    Dpo,
    Duel,
    Grpo,
    Job,
    Labelled,
    Preference,
    Rank,
    Reward,
    Sft,
    Task,
)
from moco_toolkit_training.worker import train

torch.set_num_threads(1)

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 1}
FAST: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 4}


async def no_judge(completions: Any) -> Any:
    raise AssertionError("rewards come from the site here")


def demonstrations(n: int = 8) -> list[Demonstration]:
    return [Demonstration.of(f"What is {i} + 3?", f"The answer is {i + 3}.") for i in range(n)]


PAIRS = [Preference(prompt=f"Say {i}", chosen="The answer is 5.", rejected=f"fox {i}") for i in range(8)]
WORDS = [Labelled(messages=f"{'apple' if i % 2 else 'fox'} {i}", label=i % 2) for i in range(8)]
DUELS = [Duel(query=f"q {i}", a="apple pear", b="lazy dog", label=1.0) for i in range(4)]
TASKS = [Task(prompt=f"Say {i}", extra={"n": i}) for i in range(4)]

JOBS: dict[str, Job] = {
    "sft": Sft(rows=demonstrations(), **FAST),
    "dpo": Dpo(rows=PAIRS, **FAST),
    "grpo": Grpo(rows=TASKS, judge=no_judge, judged_by=0, group=4, batch=4, max_new_tokens=6, **FAST),
    "classify": Classify(rows=WORDS, classes=2, **FAST),
    "reward": Reward(rows=PAIRS, **FAST),
    "rank": Rank(rows=DUELS, **FAST),
}
"""A short training of every service."""


def lengths(rollouts: Sequence[tuple[int, str]]) -> list[float | None]:
    return [float(len(text)) for _, text in rollouts]


class Lab:
    """A place to train in. ``model`` is what most tests start from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = random_checkpoints.write(root / "base", **SMALL)
        self.pool = TransformersPool(
            build(Options, {"models": [self.base], "device": "cpu", "cache": str(root / "hashes")})
        )
        (self.model,) = self.pool.models()
        self._number = 0

    def site(
        self,
        model: Model | None = None,
        *,
        seed: int = 7,
        folder: Path | None = None,
        reward: Callable[..., Any] = lengths,
        tell: Callable[..., Any] = lambda figures: None,
    ) -> TrainingSite:
        """Return a site as the engine lends it, in a new folder."""
        self._number += 1
        folder = folder or self.root / f"job{self._number}"
        folder.mkdir(exist_ok=True)
        given = TrainingSite(folder=folder, seed=seed, tell=tell, reward=reward, cancelled=lambda: False)
        engine, model = self.pool.engine, model or self.model
        return site_of(model, given, engine.entry(model), engine.cpu, engine.options)

    def train(
        self, job: Job, model: Model | None = None, *, how: Any = None, **site: Any
    ) -> tuple[dict[str, Any], Path]:
        """Train in this process; return the figures and the folder of the result."""
        place = self.site(model, **site)
        return train(job, place, **(how or {})), place.folder / "model"

    def derive(self, folder: Path, source: Model | None = None) -> Model:
        """Return the trained model, as a run gets it."""
        return self.pool.engine.derive("trained", Trained(str(folder), folder), [source or self.model])

    def moved(self, folder: Path) -> Path:
        """Return a copy of a result at another place; the first one is gone."""
        place = folder.with_name(f"{folder.name}-moved")
        shutil.move(folder, place)
        return place

    def logits(self, model: Model, text: str = "The quick brown fox", **how: Any) -> torch.Tensor:
        """Return what the engine computes for a text: float32 (positions, V)."""
        with self.pool.engine.use(model) as (loaded,):
            ids = torch.tensor([loaded.encode(text)])
            return loaded.run(input_ids=ids).logits[0].clone()


def digest_of(folder: Path) -> str:
    """Return the hash of all weights in a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()
