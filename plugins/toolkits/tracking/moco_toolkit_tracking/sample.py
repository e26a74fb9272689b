"""A grid of two runs that overlap, as events: what tests of trackers tell them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moco_core.events import BenchmarkFinished, BenchmarkStarted, RunFinished, RunNoted, RunStarted

__all__ = ["REPORTS", "sample"]

_SCORES: Mapping[str, Any] = {"vote": {"mean": 0.75, "low": 0.5, "high": 0.9, "n": 8}, "small": None}
REPORTS = [
    {
        "dataset": "skills",
        "seeds": [0],
        "metric": "exact_match",
        "rows": [
            {
                "label": "small",
                "role": "baseline",
                "score": None,
                "versus_best_single": None,
                "calls": 8,
                "prompt_tokens": 80,
                "completion_tokens": 16,
                "seconds": 1.5,
                "status": "failed",
            },
            {
                "label": "vote",
                "role": "method",
                "score": _SCORES["vote"],
                "versus_best_single": {"difference": 0.25, "low": 0.0, "high": 0.5, "p_value": 0.03125},
                "calls": 24,
                "prompt_tokens": 240,
                "completion_tokens": 48,
                "seconds": 2.5,
                "status": "finished",
            },
        ],
    }
]
"""The comparison that the sample ends with."""


def sample(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield hooks and events of a grid in a folder: ``vote`` finishes with a score of 0.75 in [0.5, 0.9], ``small`` fails."""
    yield "moco_benchmark_started", BenchmarkStarted(runs=2, models=2, folder=folder)
    for run in _SCORES:
        config = {
            "pool": {"name": "tiny", "models": ["a", "b"]},
            "method": {"name": run, "rounds": 2},
            "dataset": {"name": "skills"},
            "metric": {"name": "exact_match"},
            "seed": 0,
        }
        yield "moco_run_started", RunStarted(run_id=f"skills-{run}-s0", folder=folder / run, config=config, label=run)
    notes: list[Mapping[str, Any]] = [{"step": n, "score": n / 4, "best": n / 4, "label": "particle"} for n in range(3)]
    notes += [{"training": "a-sft", "step": n, "loss": 2.0 - n} for n in (0, 1)]
    for note in notes:
        yield "moco_run_noted", RunNoted(run_id="skills-vote-s0", phase="fit", data=note)
    for run, score in _SCORES.items():
        row = {"prompt": 240, "completion": 48, "calls": 20, "cached": 4, "seconds": 1.0, "money": 0.5}
        summary = {"score": score, "tokens": {"respond": {"a": row}}, "timings": {"total": 2.5}, "failed": 0}
        status = "finished" if score else "failed"
        yield (
            "moco_run_finished",
            RunFinished(run_id=f"skills-{run}-s0", folder=folder / run, status=status, summary=summary),  # type: ignore[arg-type]
        )
    yield "moco_benchmark_finished", BenchmarkFinished(folder=folder, status="failed", reports=REPORTS)
