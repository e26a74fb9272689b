"""Executors: where the runs of a grid are done. Without one they are done in this process, several at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import attrs

from moco_core.options import NoOptions

OptionsT = TypeVar("OptionsT")
R = TypeVar("R")


@attrs.frozen(kw_only=True)
class JobConfig:
    """One run of a grid as data: it can be pickled, sent elsewhere, and done there by ``moco_core.run_job``.

    ``config`` is a whole run configuration of one method (of a single model's run: of none), dataset and seed, its secrets
    masked: where a run is done elsewhere, keys come from the environment there. ``position`` is its place in the grid,
    ``role`` ``method``, ``control`` or ``baseline``, ``label`` its name in tables. ``plugins`` are the files given as
    ``--plugin``; in the file ``spent`` all jobs sum up what they spend.
    """

    position: int
    role: str
    label: str
    config: Mapping[str, Any]
    cache: Path | None = None
    plugins: tuple[Path, ...] = ()
    spent: Path | None = None


class Executor(ABC, Generic[OptionsT]):
    """Carries out the runs of a grid; a configuration names it with its key ``executor``."""

    Options: ClassVar[type] = NoOptions

    def __init__(self, options: OptionsT) -> None:
        self.options = options
        self.tell: Callable[[str, Any], None] = lambda hook, event: None
        """Hands what a run elsewhere tells, a hook of observers and its event, to those of the grid."""

    @abstractmethod
    def map(self, jobs: Sequence[JobConfig], run: Callable[[JobConfig], Awaitable[R]]) -> AsyncIterator[R]:
        """Yield the result of every job, in any order; how many are done at once is the executor's choice.

        ``run`` does a job in this process, on the pool, cache and scheduler that all of them share. A job whose run fails
        has a result that says so; what ``run`` raises ends the grid. When the iterator is closed, or the task that awaits
        it is cancelled, jobs under way end before it returns, as interrupted.
        """
