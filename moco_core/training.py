"""Training: a job is a value, an engine lends it a model's devices, and what comes out is a model like any other.

A method never sees a trainer. It makes a job (``moco_toolkit_training`` has them: demonstrations, preferences, rewards, labels)
and asks for the model that the job makes of another::

    tuned = await context.train(model, Sft(rows=rows))
    reply = await context.generate(tuned, question)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import attrs

from moco_core.errors import CapabilityError


@attrs.frozen(kw_only=True)
class TrainingSite:
    """Where one training takes place. The functions may be called from any thread.

    ``folder`` is the job's own: its result goes into ``folder/model``, what a killed job goes on from may lie anywhere else
    in it. ``seed`` is derived from the run's seed, the model and the job. ``tell`` takes the current figures
    (``step``, ``steps``, ``loss`` or ``reward``, ``left`` seconds); ``reward`` hands ``(row, completion)`` pairs to
    :meth:`TrainingJob.reward` in the run's loop and waits; ``cancelled`` says that the run is being stopped. The engine adds
    ``entry`` (the model's files, as in a pool's options), ``device``, ``threads`` on a CPU, and what else it knows in ``info``.
    """

    folder: Path
    seed: int
    tell: Callable[[Mapping[str, Any]], None]
    reward: Callable[[Sequence[tuple[int, str]]], Sequence[float | None]]
    cancelled: Callable[[], bool]
    entry: Mapping[str, Any] = attrs.field(factory=dict)
    device: str = "cpu"
    threads: int | None = None
    info: Mapping[str, Any] = attrs.field(factory=dict)


class TrainingJob(Protocol):
    """What to train a model on, and how: a value."""

    @property
    def service(self) -> str:
        """A word for it: ``sft``, ``dpo``, ``grpo``, ``classify``, ``reward``, ``rank``."""

    @property
    def fingerprint(self) -> str:
        """Equal for jobs that train alike: service, rows, settings, seed."""

    def run(self, site: TrainingSite) -> Mapping[str, Any]:
        """Train, leave the result in ``site.folder/model``, and return figures as JSON data. Blocks.

        Figures with a meaning of their own: ``train_tokens`` and ``train_flops`` are the run's cost; ``history`` is a list of
        lines for the fit log; ``warnings`` are sentences for the user; ``skipped`` says why nothing was trained.
        """

    async def reward(self, rollouts: Sequence[tuple[int, str]]) -> Sequence[float | None]:
        """Return the rewards of completions, each with the index of its row; None leaves one out."""


@attrs.frozen
class Trained:
    """The recipe (:class:`~moco_core.models.Recipe`) of a trained model: an adapter on what was trained, or a checkpoint."""

    kind: ClassVar[Literal["checkpoint"]] = "checkpoint"
    fingerprint: str
    folder: Path

    def checkpoint(self, sources: Sequence[Any]) -> Mapping[str, Any]:
        entry = sources[0].engine.entry(sources[0])
        if (self.folder / "adapter_config.json").exists():
            return {**entry, "adapter": str(self.folder)}
        if (self.folder / "config.json").exists():
            return {**entry, "model": str(self.folder), "adapter": "", "revision": None}
        raise CapabilityError(f"{self.folder}: its training left neither an adapter nor a checkpoint")
