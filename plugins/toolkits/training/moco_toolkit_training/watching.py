"""What watches a trainer: tells its figures, stops it where going on makes no sense, marks checkpoints that are whole."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from moco_core.errors import ModelCallError

__all__ = ["INTERVAL", "Best", "Stages", "Watch", "last_checkpoint"]

INTERVAL = 60.0
"""Seconds between two checkpoints."""

_WHOLE = "whole"
_SHOWN = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "reward": "reward",
    "kl": "kl",
    "frac_reward_zero_std": "zero_spread",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "accuracy": "accuracy",
}
"""What is told of a step, by the trainer's name and ours."""


class Watch(TrainerCallback):
    """Follows one training. ``tell`` gets the figures of every step; ``patience`` bounds the steps in a row in which no
    group of completions had two different rewards (None: nobody counts). A checkpoint is written every ``interval``
    seconds, and less often where writing takes more than a twentieth of the time.

    Raises ModelCallError at a step whose loss or gradient is not finite: the last checkpoint is of a step before it.
    """

    def __init__(
        self,
        name: str,
        tell: Callable[[Mapping[str, Any]], None],
        *,
        patience: int | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self.name, self.tell, self.patience, self.interval = name, tell, patience, interval
        self.steps = 0
        self.first_step: float | None = None  # seconds from the start of training to the end of the first step
        self._started = self._since = time.monotonic()
        self._done_before = 0
        self._saved = self._asked = self._started

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = state.max_steps
        self._done_before = state.global_step
        self._started = self._since = self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.first_step is None:
            self.first_step = time.monotonic() - self._started
            self._since, self._done_before = time.monotonic(), state.global_step
        self._asked = time.monotonic()
        if self._asked - self._saved >= self.interval and state.global_step < state.max_steps:
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step = state.global_step
        for what in ("loss", "grad_norm"):
            if not math.isfinite(float(logs.get(what, 0.0))):
                raise ModelCallError(
                    f"{self.name}: the {what.replace('grad_norm', 'gradient')} became {logs[what]} at step {step}; lower "
                    "learning_rate, or look at the rows of that step"
                )
        done = step - self._done_before
        left = (time.monotonic() - self._since) / done * (state.max_steps - step) if done else None
        self.tell({"step": step, "steps": state.max_steps, "left": left, **shown(logs)})
        if self.patience is None:
            return
        recent = [e["frac_reward_zero_std"] for e in state.log_history if "frac_reward_zero_std" in e]
        if len(recent) >= self.patience and all(share == 1 for share in recent[-self.patience :]):
            raise ModelCallError(
                f"{self.name}: for {self.patience} steps all completions of every group had equal rewards, from which "
                "nothing is learnt; use tasks of which some are solved, a higher temperature, or larger groups"
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for other in folder.glob("*/adapter_config.json"):
            # a frozen copy to compare with, which is made anew; where one lies there, the library loads it and forgets ours
            shutil.rmtree(other.parent)
        (folder / _WHOLE).touch()
        self._saved = time.monotonic()
        self.interval = max(self.interval, 20 * (self._saved - self._asked) if self.interval else 0.0)


class Stages(TrainerCallback):
    """Has ``save`` keep what is trained after each of the given steps."""

    def __init__(self, steps: Iterable[int], save: Callable[[int], None]) -> None:
        self.steps, self.save = frozenset(steps), save

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self.save(state.global_step)


class Best(TrainerCallback):
    """Keeps in ``file`` the trained weights of the epoch with the lowest loss on held-out rows, the first of equals.

    A training that goes on after it was killed finds there what it had kept.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.loss, self.step = math.inf, 0
        if file.exists():
            with safe_open(str(file), framework="pt") as kept:
                told = kept.metadata()
            self.loss, self.step = float(told["loss"]), int(told["step"])

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_evaluate = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss, model = float(kwargs["metrics"]["eval_loss"]), kwargs["model"]
        if not loss < self.loss:
            return
        self.loss, self.step = loss, state.global_step
        beside = self.file.with_suffix(".partial")
        trained = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
        save_file(trained, str(beside), metadata={"loss": repr(loss), "step": str(self.step)})
        os.replace(beside, self.file)

    def restore(self, model: Any) -> None:
        """Give a model the weights that were kept, if any were."""
        if self.file.exists():
            model.load_state_dict(load_file(str(self.file)), strict=False)


def shown(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return what people want to know of a step."""
    return {ours: float(logs[theirs]) for theirs, ours in _SHOWN.items() if theirs in logs}


def last_checkpoint(folder: Path) -> Path | None:
    """Return the latest checkpoint that was written to its end."""
    found = [(int(m[1]), p) for p in folder.glob("checkpoint-*") if (m := re.fullmatch(r"checkpoint-(\d+)", p.name))]
    whole = [(step, path) for step, path in found if (path / _WHOLE).exists()]
    return max(whole)[1] if whole else None
