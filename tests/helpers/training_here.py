"""Training in the process of the test: what a process of its own would do, without starting one."""

from __future__ import annotations

from typing import Any

import pytest


def train_here(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have every job train in this process from now on; return the list of jobs, which grows as they are trained."""
    from moco_toolkit_training import process
    from moco_toolkit_training.worker import train

    trained: list[Any] = []

    def run(service: str, job: Any, fitted: Any, site: Any) -> Any:
        trained.append(job)
        return train(job, site, most=fitted.most, checkpointing=fitted.checkpointing)

    monkeypatch.setattr(process, "run", run)
    return trained
