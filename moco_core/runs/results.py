"""What a run came to: its result in memory and the summary that closes its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from moco_core.config import Plugin
from moco_core.errors import MocoError
from moco_core.runs.answering import Answers
from moco_core.runs.stats import estimate
from moco_core.runtime.contexts import RunState
from moco_core.runtime.ledger import Ledger
from moco_core.types import Unit, Usage

__all__ = ["Job", "RunResult", "run_result", "summary_of"]


@attrs.frozen(kw_only=True)
class Job:
    """One run to do: a method (or a single model) on a dataset with a seed. ``role`` is ``method`` or ``baseline``."""

    method: Plugin
    dataset: Plugin
    metric: Plugin
    seed: int
    role: str
    label: str


@attrs.frozen(kw_only=True)
class RunResult:
    """What a run came to. ``units`` are what statistics count; shares are of all test questions.

    ``figures`` are further figures by name: the mean over subsets, and what the metric adds (macro F1, say). ``refused``
    says that the configuration was found wrong before any model was asked.
    """

    job: Job
    folder: Path
    status: str
    units: tuple[Unit, ...]
    dev_mean: float | None
    questions: int
    failed: int
    unparsed: float
    truncated: float
    calls: int
    cached_calls: int
    usage: Usage
    seconds: float
    warnings: tuple[str, ...] = ()
    binary: bool = True
    first_error: str = ""
    refused: bool = False
    figures: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def subsets(self) -> dict[str, dict[str, float]]:
        """Mean score and number of units of every subset, by name."""
        groups: dict[str, list[float]] = {}
        for unit in self.units:
            if unit.subset:
                groups.setdefault(unit.subset, []).append(unit.score)
        return {name: {"mean": sum(v) / len(v), "n": len(v)} for name, v in sorted(groups.items())}


def run_result(
    job: Job, work: Answers, status: str, dev_mean: float | None, questions: int, seconds: float
) -> RunResult:
    """Return what a run came to, finished or not."""
    answered = max(len(work.rows), 1)
    session = work.session
    calls = session.ledger.calls
    result = RunResult(
        job=job,
        folder=work.folder.path,
        status=status,
        units=tuple(session.metric.units(work.rows)),
        dev_mean=dev_mean,
        questions=questions,
        failed=work.failed,
        unparsed=sum(r.score.answer.status != "parsed" for r in work.rows) / answered,
        truncated=sum(r.reply.finish_reason == "length" for r in work.rows) / answered,
        calls=calls,
        cached_calls=session.ledger.cached,
        usage=session.ledger.usage,
        seconds=seconds,
        warnings=tuple(session.warnings),
        binary=session.metric.binary,
        first_error=work.first_error,
        refused=isinstance(work.cause, MocoError) and work.cause.exit_code == 2 and not calls,
    )
    return attrs.evolve(result, figures=_figures(result, session.metric.figures(work.rows)))


def _figures(result: RunResult, told: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over subsets, where there are several, and what the metric tells."""
    means = [s["mean"] for s in result.subsets.values()]
    over = {"subset_mean": sum(means) / len(means)} if len(means) > 1 else {}
    return over | {name: float(value) for name, value in told.items()}


def summary_of(result: RunResult, session: RunState, timings: Mapping[str, float], error: str) -> dict[str, Any]:
    """Return the closing part of ``run.json``: scores, shares, tokens per phase and model, timings in seconds."""
    score = estimate(result.units, result.job.seed)
    return {
        "score": None if score is None else attrs.asdict(score),
        "figures": dict(result.figures),
        "subsets": result.subsets,
        "dev_mean": result.dev_mean,
        "questions": result.questions,
        "failed": result.failed,
        "unparsed": result.unparsed,
        "truncated": result.truncated,
        "tokens": costs_of(session.ledger),
        "timings": {**timings, "total": result.seconds},
        "warnings": list(result.warnings),
        "error": error,
    }


def costs_of(ledger: Ledger) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a run's costs as run.json has them: by phase and model, what the work costs and what the cache saved of it.

    ``unpriced`` and ``untimed`` count calls whose money or seconds are unknown; the sums are "at least" then.
    """
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for phase, model, tally in ledger:
        row: dict[str, Any] = {
            "prompt": tally.usage.prompt_tokens,
            "completion": tally.usage.completion_tokens,
            "calls": tally.calls - tally.cached,
            "cached": tally.cached,
            "seconds": round(tally.seconds, 6),
            "untimed": tally.untimed,
            "saved": {
                "prompt": tally.saved_usage.prompt_tokens,
                "completion": tally.saved_usage.completion_tokens,
                "seconds": round(tally.saved_seconds, 6),
            },
        }
        if tally.priced:
            row |= {"money": round(tally.money, 9), "unpriced": tally.unpriced}
            row["saved"]["money"] = round(tally.saved_money, 9)
        out.setdefault(phase, {})[model] = row
    return out
