"""A training in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moco_core.errors import CapabilityError
from moco_core.training import TrainingJob, TrainingSite

__all__ = ["run"]


def run(job: TrainingJob, site: TrainingSite) -> Mapping[str, Any]:
    """Train. Raises CapabilityError: this version has the jobs, scripted models take them, and no engine does yet."""
    raise CapabilityError(f"{job.service}: no engine of this version trains weights")
