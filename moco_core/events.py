"""What observers are told: one frozen event per hook. Events may grow fields; they never lose any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

__all__ = ["QuestionAnswered", "RunFinished", "RunProgress", "RunStarted"]


@attrs.frozen(kw_only=True)
class RunStarted:
    """A run begins. ``config`` is the effective configuration as JSON data."""

    run_id: str
    folder: Path
    config: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class RunProgress:
    """A phase moved on. ``total`` is None while it is unknown; ``note`` is a short text such as "best 0.81"."""

    run_id: str
    phase: str
    done: int
    total: int | None = None
    note: str = ""


@attrs.frozen(kw_only=True)
class QuestionAnswered:
    """One test question was answered and scored (``error`` empty), or failed (``score`` None)."""

    run_id: str
    question_id: str
    score: float | None
    status: str
    error: str = ""


@attrs.frozen(kw_only=True)
class RunFinished:
    """A run ended. ``summary`` is what ``run.json`` holds about its score and its cost."""

    run_id: str
    folder: Path
    status: Literal["finished", "failed", "interrupted"]
    summary: Mapping[str, Any]
