"""A training that is killed at any step goes on from its last checkpoint and ends where an uninterrupted one ends."""

from __future__ import annotations

import os
import signal

import attrs
import pytest
from training_lab import JOBS, digest_of

from moco_toolkit_authoring.killing import killed
from moco_toolkit_training.worker import train

PARTS = {"accumulated": attrs.evolve(JOBS["sft"], batch=4, min_steps=1, lora=None)}
"""An update of several parts, and all weights: optimiser and position matter most there."""


QUICK = ("grpo", "accumulated")
"""Those that are killed in every run of the tests: one that draws, and one whose optimiser has all weights."""


def train_until_killed(job, site, step: int) -> None:
    """Train in a fork until a step is done; then SIGKILL."""
    from transformers import TrainerCallback

    class Killer(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs) -> None:
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)

    killed(lambda: train(job, site, interval=0.0, most=2, prepare=lambda trainer: trainer.add_callback(Killer())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in (*JOBS, *PARTS)]
)
def test_killed_and_run_again_it_ends_at_the_same_weights(lab, name):
    job = {**JOBS, **PARTS}[name]
    straight, folder = lab.train(job, how={"most": 2})
    site = lab.site()
    train_until_killed(job, site, 2)
    left = sorted(p.name for p in (site.folder / "checkpoints").glob("checkpoint-*"))
    assert left == ["checkpoint-1", "checkpoint-2"] and not (site.folder / "model").exists()
    figures, again = lab.train(job, folder=site.folder, how={"most": 2})
    assert figures["resumed_at"] == 2 and digest_of(again) == digest_of(folder)
    assert figures["history"] == straight["history"] and figures["train_tokens"] == straight["train_tokens"]


def test_a_checkpoint_that_was_not_written_to_its_end_is_not_gone_on_from(lab):
    site = lab.site()
    half = site.folder / "checkpoints" / "checkpoint-3"
    half.mkdir(parents=True)
    (half / "trainer_state.json").write_text("{")
    figures, _ = lab.train(JOBS["sft"], folder=site.folder)
    assert figures["resumed_at"] == 0


@pytest.mark.slow
def test_rounds_that_go_on_from_an_adapter_resume_to_the_same_bits_too(lab):
    model = lab.derive(lab.train(JOBS["sft"])[1])
    straight = lab.train(JOBS["dpo"], model, how={"most": 2})[1]
    site = lab.site(model)
    train_until_killed(JOBS["dpo"], site, 2)
    figures, again = lab.train(JOBS["dpo"], model, folder=site.folder, how={"most": 2})
    assert figures["resumed_at"] == 2 and digest_of(again) == digest_of(straight)
