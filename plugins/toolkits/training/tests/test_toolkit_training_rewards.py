"""GRPO: nothing is learnt from equal rewards, what is rewarded becomes likelier, and rewards are of the right completions."""

from __future__ import annotations

import attrs
import pytest
import torch
from safetensors.torch import load_file
from training_lab import JOBS, TASKS

from moco_core import ConfigError, ModelCallError

JOB = JOBS["grpo"]


@pytest.fixture(scope="module")
def constant(lab):
    """A training whose rewards are all equal, without KL; and what was seen of it."""
    start = []
    job = attrs.evolve(JOB, beta=0.0, max_steps=3)

    def keep(trainer):
        start.append({n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad})

    figures, folder = lab.train(job, reward=lambda rollouts: [1.0] * len(rollouts), how={"prepare": keep})
    return figures, folder, start[0]


def test_equal_rewards_leave_every_parameter_as_it_was_and_are_told(constant):
    figures, folder, start = constant
    saved = load_file(folder / "adapter_model.safetensors")
    assert len(saved) == len(start)
    for name, tensor in start.items():
        assert torch.equal(saved[name.replace(".default", "")], tensor)
    assert [h["zero_spread"] for h in figures["history"]] == [1.0, 1.0, 1.0]
    assert [h["reward"] for h in figures["history"]] == [1.0, 1.0, 1.0]


def test_no_spread_for_long_stops_with_what_to_do(lab):
    job = attrs.evolve(JOB, max_steps=9, patience=2)
    with pytest.raises(ModelCallError, match="for 2 steps all completions of every group had equal rewards"):
        lab.train(job, reward=lambda rollouts: [0.0] * len(rollouts))


def test_rewards_are_asked_for_groups_of_different_completions_with_their_own_rows(lab):
    asked, advantages = [], []

    def reward(rollouts):
        asked.append(list(rollouts))
        return [float(len(text)) if i else None for i, (_, text) in enumerate(rollouts)]  # one is left out

    def spy(trainer):
        inner = trainer._generate_and_score_completions

        def seen(inputs):
            out = inner(inputs)
            advantages.append(out["advantages"].clone())
            return out

        trainer._generate_and_score_completions = seen

    lab.train(attrs.evolve(JOB, max_steps=2), reward=reward, how={"prepare": spy})
    for rollouts, values in zip(asked, advantages, strict=True):
        rows = [row for row, _ in rollouts]
        assert len(rollouts) == JOB.group and len(set(rows)) == 1 and rows[0] in range(len(TASKS))
        assert len({text for _, text in rollouts}) > 1
        assert abs(float(values[1:].sum())) < 1e-4 or torch.isnan(values[0])


def test_rewards_that_are_no_numbers_are_refused(lab):
    with pytest.raises(ConfigError, match=r"grpo: the reward of a completion of row \d is nan, not a finite number"):
        lab.train(JOB, reward=lambda rollouts: [float("nan")] * len(rollouts))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_rewarded_becomes_likelier(lab, seed):
    job = attrs.evolve(JOB, lora=None, learning_rate=5e-3, max_steps=60, batch=8, min_steps=1, beta=0.0)
    figures, _ = lab.train(job, seed=seed, reward=lambda rollouts: [float(text.count("e")) for _, text in rollouts])
    rewards = [h["reward"] for h in figures["history"]]
    assert sum(rewards[-10:]) / 10 > sum(rewards[:10]) / 10 + 1
