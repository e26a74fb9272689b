"""The losses of a real training, as the trackers have them: one run trains once and tells all four.

``pytest tests/test_trackers_of_a_training.py -m slow``: a training loads what trainers need, a tracker what it needs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
from wandb_files import records

import moco_core as moco
from moco_core import Context, Example, Method, Model, Needs, NoOptions, Pool, Question, Reply, System
from moco_core.catalogue import installed

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # what a tracker warns of is its own affair

STEPS = 4


@attrs.frozen(eq=False, slots=False)
class TaughtSystem(System):
    """One model that was trained."""

    trained: Model

    async def respond(self, question: Question, context: Context) -> Reply:
        return Reply.of(await context.generate(self.trained, question))


class Taught(Method[NoOptions]):
    """Trains the first model on two lines, a few updates long."""

    system = TaughtSystem

    def needs(self) -> Needs:
        return Needs(capabilities={"generate", "train"})

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> TaughtSystem:
        from moco_toolkit_training import Demonstration, Sft

        rows = [Demonstration.of("What is the sum of 1 and 2?", "3"), Demonstration.of("Say yes.", "yes")]
        job = Sft(rows=rows, max_steps=STEPS, learning_rate=1e-2)
        return TaughtSystem(pool, self.options, trained=await context.train(pool[0], job, name="taught"))


@attrs.frozen
class Trained:
    """A run that trained: its folder, its name, and the loss of every step as the fit log has it."""

    folder: Path
    run: str
    losses: dict[int, float]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    for name in ("wandb", "mlflow", "trackio", "tensorboard"):
        pytest.importorskip(f"moco_observer_{name}")
        pytest.importorskip(name)
    pytest.importorskip("moco_toolkit_training")
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MOCO_CACHE", str(folder / "calls.sqlite"))
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(folder / "home"))
        patch.setattr(logging.getLogger("wandb"), "propagate", False)
        patch.setattr(installed(), "_registered", {})
        moco.register(cast(Any, Taught), "taught")
        observers = [
            {"name": "wandb", "mode": "offline", "folder": str(folder), "wait": 300},
            {"name": "mlflow", "wait": 300},
            {"name": "trackio", "wait": 300},
            {"name": "tensorboard", "folder": str(folder / "board"), "wait": 300},
        ]
        found = moco.run(
            pool={"name": "tiny", "models": ["arithmetic"]},
            method="taught",
            dataset="skills",
            dev=2,
            test=2,
            baselines=False,
            observers=observers,
            out="mine",
        )
        (run,) = [run for run in found.runs if run.label == "taught"]
        lines = [json.loads(line) for line in Path("mine", run.id, "fit.jsonl").read_text().splitlines()]
        losses = {line["step"]: line["loss"] for line in lines if line.get("training") == "taught" and "step" in line}
        yield Trained(folder, run.id, losses)


def test_the_fit_log_has_a_loss_of_every_step(trained: Trained) -> None:
    assert sorted(trained.losses) == list(range(1, STEPS + 1))
    assert trained.losses[STEPS] < trained.losses[1]  # two lines, learnt by heart


def test_wandb_has_the_losses_of_a_training(trained: Trained) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    curves = {}
    for file in trained.folder.rglob("*.wandb"):
        name, curve = "", {}
        for data in records(file.read_bytes()):
            record = Record.FromString(data)
            name = record.run.display_name or name
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            if "training/taught/loss" in row:
                curve[row["training/taught/step"]] = row["training/taught/loss"]
        curves[name] = curve
    assert curves[trained.run] == pytest.approx(trained.losses)


def test_mlflow_has_the_losses_of_a_training(trained: Trained) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("moco")
    assert experiment is not None
    runs = {r.info.run_name: r.info.run_id for r in client.search_runs([experiment.experiment_id])}
    history = client.get_metric_history(runs[trained.run], "training/taught/loss")
    assert {m.step: m.value for m in history} == pytest.approx(trained.losses)


def test_trackio_has_the_losses_of_a_training(trained: Trained) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs("moco", trained.run)
    found = {row["step"]: row["training/taught/loss"] for row in logs if "training/taught/loss" in row}
    assert found == pytest.approx(trained.losses)


def test_tensorboard_has_the_losses_of_a_training(trained: Trained) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.folder / "board" / "moco" / "mine" / trained.run))
    events.Reload()
    found = {e.step: float(e.tensor_proto.float_val[0]) for e in events.Tensors("training/taught/loss")}
    assert found == pytest.approx(trained.losses, abs=1e-5)
