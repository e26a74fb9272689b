"""Training in the process of the test: what a process of its own would do, without starting one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

_ALONE = threading.RLock()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let no other thread train or load a model: libraries change themselves meanwhile, for the whole process."""
    try:
        from moco_pool_transformers.weights import LOADING as loading
    except ImportError:
        loading = _ALONE
    with loading:
        yield


def run_here(service: str, job: Any, fitted: Any, site: Any, **how: Any) -> Any:
    """Stand in for ``moco_toolkit_training.process.run``; ``how`` is handed to the trainer."""
    from moco_toolkit_training.worker import train

    with _alone():
        return train(job, site, most=fitted.most, checkpointing=fitted.checkpointing, **how)


def train_here(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have every job train in this process from now on; return the list of jobs, which grows as they are trained."""
    from moco_toolkit_training import process

    trained: list[Any] = []

    def run(service: str, job: Any, fitted: Any, site: Any) -> Any:
        trained.append(job)
        return run_here(service, job, fitted, site)

    monkeypatch.setattr(process, "run", run)
    return trained
