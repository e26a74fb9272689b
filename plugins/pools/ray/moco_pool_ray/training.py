"""A training on an actor: what it says and asks is kept until the run fetches it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moco_core import Model, ModelCallError
from moco_core.training import TrainingJob, TrainingSite
from moco_pool_ray.files import pack
from moco_pool_ray.session import as_error

__all__ = ["Training"]

_LOOK = 0.5  # seconds after which who waits for news is told that there are none


class Training:
    """One job at work. ``shared`` says that ``folder`` is the run's own; else what lies there is packed at the end."""

    def __init__(self, model: Model, job: TrainingJob, seed: int, folder: Path, shared: bool) -> None:
        self.shared = shared
        self.cancelled = False
        self.archive = folder.with_name(f"{folder.name}.done.tar")
        self._model, self._job, self._seed, self._folder = model, job, seed, folder
        self._said: list[tuple[str, Any]] = []
        self._answers: dict[int, Any] = {}
        self._news = threading.Condition()

    def run(self) -> None:
        """Do the job. Its last word is ``done`` with its figures, or ``failed`` with the error."""
        site = TrainingSite(
            folder=self._folder,
            seed=self._seed,
            tell=lambda figures: self._say("tell", dict(figures)),
            reward=self._reward,
            cancelled=lambda: self.cancelled,
        )
        try:
            figures: Mapping[str, Any] = self._model.engine.train(self._model, self._job, site)
            if not self.shared:
                pack(self._folder, self.archive)
        except Exception as error:
            self._say("failed", as_error(self._model.name, error))
        else:
            self._say("done", dict(figures))

    def _say(self, what: str, value: Any) -> None:
        with self._news:
            self._said.append((what, value))
            self._news.notify_all()

    def _reward(self, rollouts: Sequence[tuple[int, str]]) -> Sequence[float | None]:
        with self._news:
            number = len(self._said)
            self._said.append(("reward", list(rollouts)))
            self._news.notify_all()
            while number not in self._answers:
                if self.cancelled:
                    raise ModelCallError(f"{self._model.name}: the run was stopped while it was trained")
                self._news.wait(_LOOK)
            answer = self._answers[number]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    def answer(self, number: int, rewards: Sequence[float | None] | Exception) -> None:
        with self._news:
            self._answers[number] = rewards
            self._news.notify_all()

    def events(self, since: int) -> list[tuple[str, Any]]:
        """Return what was said from number ``since`` on; nothing if nothing is said for a moment."""
        with self._news:
            if len(self._said) <= since:
                self._news.wait(_LOOK)
            return self._said[since:]
