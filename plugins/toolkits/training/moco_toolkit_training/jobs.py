"""The jobs: frozen values that say what to train on, how, and under which seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core.errors import ConfigError
from moco_core.options import plain
from moco_core.training import TrainingSite
from moco_core.types import digest
from moco_toolkit_training.rows import Completion, Demonstration, Duel, Labelled, Preference, Task, listed

__all__ = ["Classify", "Dpo", "Grpo", "Job", "Judge", "Lora", "Rank", "Reward", "Sft"]

FORMAT = 1
"""Raised when a change of this toolkit makes equal jobs train to other weights."""

Judge = Callable[[Sequence[Completion]], Awaitable[Sequence[float | None]]]
"""Gives the rewards of completions, finite numbers; None leaves a completion out. Runs in the run's event loop."""


async def _elsewhere(completions: Sequence[Completion]) -> Sequence[float | None]:
    """The judge of a job in another process, which asks for rewards through its site."""
    raise RuntimeError("rewards are given where the run is")


def _in(low: float, high: float = float("inf"), *, open_low: bool = False) -> Any:
    """Return a validator of a range, whose error is one line for people."""

    def check(job: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value is not None and not (low < value <= high if open_low else low <= value <= high):
            bound = f"{'above' if open_low else 'at least'} {low:g}" + (f" and at most {high:g}" if high < 1e9 else "")
            raise ConfigError(f"{type(job).__name__.lower()}: {field.name} must be {bound}, got {value!r}")

    return check


@attrs.frozen(kw_only=True)
class Lora:
    """A low-rank adapter (arXiv 2106.09685). ``targets`` are names of modules, or all linear ones but the output head."""

    r: int = attrs.field(default=16, validator=_in(1))
    alpha: int = attrs.field(default=32, validator=_in(1))
    dropout: float = attrs.field(default=0.05, validator=_in(0, 0.9))
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"


@attrs.frozen(kw_only=True, slots=False)
class Job:
    """What every job has.

    ``lora=None`` trains all weights. ``batch`` is the number of rows per update, whatever fits into memory at once;
    ``learning_rate=None`` takes the service's default for adapters or full weights. ``warmup`` is a share of all updates.
    On few rows the batch shrinks until an epoch has ``min_steps`` updates. A row longer than ``max_length`` tokens loses the
    start of its prompt (``left_prompt``) or its end (``keep_start``), is dropped, or is an error; completions are cut by
    ``keep_start`` alone. ``held_out`` rows are never trained on: their loss is reported, and with ``keep_best`` it says after
    every epoch whether its weights are the best so far, the earlier ones of equals. ``keep`` is how many stages of the
    training are kept, evenly apart and the last one among them, for :func:`~moco_toolkit_training.stages` to choose from.
    ``seed`` makes replicates within a run; the run's own seed reaches every job anyway.

    A loss of a method's own is a subclass in that method's package: see :meth:`columns`, :meth:`trainer`, :meth:`finish`.
    """

    service: ClassVar[str]
    rates: ClassVar[tuple[float, float]]
    """Default learning rates: for adapters, for full weights."""

    rows: tuple[Any, ...] = attrs.field(converter=listed)
    held_out: tuple[Any, ...] = attrs.field(default=(), converter=listed)
    lora: Lora | None = Lora()
    learning_rate: float | None = attrs.field(default=None, validator=_in(0))
    epochs: float = attrs.field(default=3, validator=_in(0, open_low=True))
    max_steps: int | None = attrs.field(default=None, validator=_in(1))
    batch: int = attrs.field(default=16, validator=_in(1))
    min_steps: int = attrs.field(default=10, validator=_in(1))
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = attrs.field(default=0.03, validator=_in(0, 1))
    weight_decay: float = attrs.field(default=0.0, validator=_in(0))
    clip: float = attrs.field(default=1.0, validator=_in(0, open_low=True))
    max_length: int = attrs.field(default=2048, validator=_in(2))
    overlong: Literal["left_prompt", "keep_start", "drop", "error"] = "left_prompt"
    keep: int = attrs.field(default=1, validator=_in(1))
    keep_best: bool = False
    seed: int = 0

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return self.rates[self.lora is None] if self.learning_rate is None else self.learning_rate

    @cached_property
    def fingerprint(self) -> str:
        """Equal for jobs that train alike."""
        return digest("training", FORMAT, self.service, {**self.facts(), "learning_rate": self.rate})

    def facts(self) -> dict[str, Any]:
        """Return the job as JSON data."""
        fields = {f.name: getattr(self, f.name) for f in attrs.fields(type(self)) if f.metadata.get("decides", True)}
        return {name: plain(value) for name, value in fields.items()}

    def run(self, site: TrainingSite) -> Mapping[str, Any]:
        """See :meth:`moco_core.training.TrainingJob.run`."""
        from moco_toolkit_training.fitting import fit
        from moco_toolkit_training.process import run

        return run(self.service, self.sent(), fit(self, site), site)

    def sent(self) -> Job:
        """Return the job as another process gets it: without what lives in this one."""
        return self

    async def reward(self, rollouts: Sequence[tuple[int, str]]) -> Sequence[float | None]:
        """See :meth:`moco_core.training.TrainingJob.reward`."""
        raise ConfigError(f"{self.service} asks for no rewards")

    # ------------------------------------------------ asked of jobs with a loss of their own alone; in the training's process

    def columns(self, row: Any, bound: int) -> Mapping[str, Any] | None:
        """Return a row that is token ids already: its ``input_ids`` and what the loss needs; None if it exceeds ``bound``."""
        raise TypeError(f"{type(self).__name__} has a loss of this toolkit, and makes neither columns nor a trainer")

    def trainer(self, student: Any, rows: Mapping[str, list[Any]], common: Mapping[str, Any], given: Any) -> Any:
        """Return a transformers trainer: ``common`` are its arguments, ``given`` its model, tokenizer and data sets."""
        raise TypeError(f"{type(self).__name__} has a loss of this toolkit, and makes neither columns nor a trainer")

    def finish(self, module: Any, folder: Path) -> Any:
        """Return the module to save of the one that was trained; what else was learnt is written into ``folder``."""
        return module


@attrs.frozen(kw_only=True, slots=False)
class Sft(Job):
    """Supervised fine-tuning: cross-entropy on the trained turns of :class:`Demonstration` rows."""

    service = "sft"
    rates = (1e-4, 1e-5)
    rows: tuple[Demonstration, ...] = attrs.field(converter=listed)


@attrs.frozen(kw_only=True, slots=False)
class Dpo(Job):
    """Direct preference optimisation (arXiv 2305.18290) on :class:`Preference` rows; the reference is the starting point."""

    service = "dpo"
    rates = (5e-6, 1e-6)
    rows: tuple[Preference, ...] = attrs.field(converter=listed)
    epochs: float = attrs.field(default=1, validator=_in(0, open_low=True))
    beta: float = attrs.field(default=0.1, validator=_in(0, open_low=True))
    max_length: int = attrs.field(default=1024, validator=_in(2))


@attrs.frozen(kw_only=True, slots=False)
class Grpo(Job):
    """Group-relative policy optimisation (arXiv 2402.03300) on :class:`Task` rows.

    For each task ``group`` completions are sampled and ``judge`` gives their rewards. ``judged_by`` tells everything that the
    rewards depend on (a metric's name and options, fingerprints of judges): it is the judge's part of the fingerprint.
    ``batch`` counts completions. Training stops with an error after ``patience`` updates in which no group had two
    different rewards.
    """

    service = "grpo"
    rates = (1e-5, 1e-6)
    rows: tuple[Task, ...] = attrs.field(converter=listed)
    judge: Judge = attrs.field(eq=False, repr=False, metadata={"decides": False})
    judged_by: Any
    epochs: float = attrs.field(default=1, validator=_in(0, open_low=True))
    batch: int = attrs.field(default=64, validator=_in(2))
    group: int = attrs.field(default=8, validator=_in(2))
    beta: float = attrs.field(default=0.001, validator=_in(0))
    epsilon: float = attrs.field(default=0.2, validator=_in(0, 1))
    temperature: float = attrs.field(default=1.0, validator=_in(0, open_low=True))
    top_p: float = attrs.field(default=1.0, validator=_in(0, 1, open_low=True))
    max_new_tokens: int = attrs.field(default=512, validator=_in(1))
    loss: Literal["grpo", "dapo", "bnpo", "dr_grpo"] = "dapo"
    scale: Literal["group", "batch", "none"] = "group"
    patience: int = attrs.field(default=20, validator=_in(1))

    def __attrs_post_init__(self) -> None:
        if self.batch % self.group:
            raise ConfigError(f"grpo: batch ({self.batch} completions) must be a multiple of group ({self.group})")
        if self.held_out:
            raise ConfigError(
                "grpo: held_out rows have no loss; let the trained model answer them and grade its replies"
            )

    def sent(self) -> Grpo:
        return attrs.evolve(self, judge=_elsewhere)

    async def reward(self, rollouts: Sequence[tuple[int, str]]) -> Sequence[float | None]:
        return await self.judge([Completion(task=self.rows[row], text=text) for row, text in rollouts])


@attrs.frozen(kw_only=True, slots=False)
class Classify(Job):
    """A classifier over ``classes`` labels on :class:`Labelled` rows: cross-entropy with hard or soft labels."""

    service = "classify"
    rates = (1e-4, 1e-5)
    rows: tuple[Labelled, ...] = attrs.field(converter=listed)
    classes: int = attrs.field(validator=_in(2))

    def __attrs_post_init__(self) -> None:
        for row in (*self.rows, *self.held_out):
            row.probabilities(self.classes)


@attrs.frozen(kw_only=True, slots=False)
class Reward(Job):
    """A reward model on :class:`Preference` rows: -log sigmoid(r_chosen - r_rejected), as Bradley and Terry (1952)."""

    service = "reward"
    rates = (1e-4, 1e-5)
    rows: tuple[Preference, ...] = attrs.field(converter=listed)
    epochs: float = attrs.field(default=1, validator=_in(0, open_low=True))


@attrs.frozen(kw_only=True, slots=False)
class Rank(Job):
    """A pairwise ranker on :class:`Duel` rows: one reading of query and both candidates gives a score to each, and the
    loss is binary cross-entropy on their difference.

    Ask it ``context.reward(ranker, pairing(query, a, b))``: the scores of the first and the second candidate.
    ``both_orders`` shows every duel a second time with its candidates exchanged.
    """

    service = "rank"
    rates = (1e-4, 1e-5)
    rows: tuple[Duel, ...] = attrs.field(converter=listed)
    both_orders: bool = True
