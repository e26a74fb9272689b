"""One run: fit on dev, answer test, score, record."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_core.data import Metric, Scored
from moco_core.errors import BudgetReached, MocoError, PluginError, PoolError, StoreError, error_line
from moco_core.events import RunFinished, RunNoted, RunProgress, RunStarted, Status
from moco_core.methods import Method, System
from moco_core.models import Pool
from moco_core.options import Plugin
from moco_core.runs import strict
from moco_core.runs.answering import Answers
from moco_core.runs.folder import RunFolder
from moco_core.runs.observe import Observers
from moco_core.runs.results import RunResult, costs_of, left_out, subsets_of
from moco_core.runs.stats import estimate
from moco_core.runtime.budget import Budget
from moco_core.runtime.runtime import Runtime
from moco_core.runtime.systems import allowed_by
from moco_core.types import Example, Generation, Sampling, Unit


@attrs.frozen(kw_only=True)
class Job:
    """One run to do: a method (or a single model) on a dataset with a seed.

    ``role`` is ``method``, ``control`` or ``baseline``, ``position`` its place in the grid.
    """

    position: int
    method: Plugin
    dataset: Plugin
    metric: Plugin
    seed: int
    role: str
    label: str


@attrs.define(kw_only=True, eq=False, slots=False)
class Run:
    """A job under way, in its folder."""

    job: Job
    pool: Pool
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    folder: RunFolder
    runtime: Runtime
    observers: Observers
    sampling: Sampling
    in_flight: int = 256
    budget: Budget | None = None

    def __attrs_post_init__(self) -> None:
        self.id = self.folder.head["id"]
        self.metric: Metric[Any] = self.job.metric.make()
        self.state = self.runtime.state(
            self.metric,
            seed=self.job.seed,
            sampling=self.sampling,
            in_flight=self.in_flight,
            budget=self.budget,
            on_note=self._note,
            on_progress=self._progress,
        )
        self.answers = Answers(
            label=self.job.label, state=self.state, folder=self.folder, observers=self.observers, run_id=self.id
        )
        self.dev_mean: float | None = None
        self.timings: dict[str, float] = {}
        self._started = time.monotonic()
        if lost := left_out(self.folder.head["dataset"]["notes"]):
            self.state.warnings.append(f"dataset {self.job.dataset.label!r} leaves out {lost}")
        self.state.warnings += self.runtime.cache.warnings

    async def do(self) -> RunResult:
        """Do the run and return what it came to. An error of the store or of a pool, an interruption or the end of the
        budget is raised again once the folder says so; any other error makes a failed run.
        """
        head = self.folder.head
        self.observers.tell(
            "moco_run_started",
            RunStarted(run_id=self.id, folder=self.folder.path, config=head["config"], label=self.job.label),
        )
        try:
            await self._work()
        except (KeyboardInterrupt, asyncio.CancelledError):
            self._close("interrupted", "stopped before its end")
            raise
        except (StoreError, PoolError, BudgetReached) as caught:
            self._close("interrupted", error_line(caught))
            raise
        except Exception as caught:
            if not isinstance(caught, MocoError):
                self.state.warnings.append(f"{self.job.label}: {error_line(caught)}")
            return self._close("failed", error_line(caught), caught)
        error, cause = self.answers.failure
        return self._close("failed" if cause else "finished", error, cause)

    async def _work(self) -> None:
        method: Method[Any] = self.job.method.make()
        allowed = allowed_by(method)
        context = self.state.context("fit", allowed=allowed)
        system = await method.fit(self.pool, self.dev, context)
        self.timings["fit"] = time.monotonic() - self._started
        self._save(system)
        answering = time.monotonic()
        work = [self.answers.answer(system, self.test, allowed)]
        if self.job.role == "baseline" and self.dev:
            work.insert(0, self._score_on_dev())  # at the same time, so that its model is loaded once for both
        await context.gather(work)
        self.timings["respond"] = time.monotonic() - answering

    async def _score_on_dev(self) -> None:
        model = self.pool.named(self.job.label)
        context = self.state.context("fit")
        found = await context.evaluate([model], self.dev, label=f"dev {model.name}")
        rows = zip(self.dev, found.replies[0], found.scores[0], strict=True)
        self.folder.save_dev(_said_on_dev(model.name, *row) for row in rows)
        known = [s for s in found.scores[0] if s is not None]
        self.dev_mean = math.fsum(known) / len(known) if known else None

    def _save(self, system: System) -> None:
        sections = {name: self.folder.head["config"][name] for name in ("pool", "method", "metric", "sampling", "seed")}
        system.save_files(self.folder.save_system({**sections, "state": system.state()}))

    def _note(self, phase: str, data: Mapping[str, Any]) -> None:
        self.folder.note(phase, data)
        self.observers.tell("moco_run_noted", RunNoted(run_id=self.id, phase=phase, data=data))

    def _progress(self, what: str, done: int, total: int | None, note: str) -> None:
        event = RunProgress(run_id=self.id, phase=what, done=done, total=total, note=note)
        self.observers.tell("moco_run_progress", event)

    # ---------------------------------------------------------------- the end

    def _close(self, status: Status, error: str, cause: Exception | None = None) -> RunResult:
        """Write the end of the run into its folder, tell it, and return what the run came to."""
        rows, ledger = self.answers.rows, self.state.ledger
        try:
            units = self._units(rows)
        except Exception as caught:
            units = ()
            error = error or f"metric {self.job.metric.name!r}: {error_line(caught)}"
            status = "failed" if status == "finished" else status
        score = estimate(units, self.job.seed)
        subsets = subsets_of(units)
        answered = max(len(rows), 1)
        summary: dict[str, Any] = {
            "score": None if score is None else attrs.asdict(score),
            "extra_metrics": self._extra_metrics(rows, subsets),
            "subsets": subsets,
            "dev_mean": self.dev_mean,
            "questions": len(self.test),
            "failed": len(self.answers.failures) if status == "interrupted" else len(self.test) - len(rows),
            "unparsed": sum(r.score.answer.status != "parsed" for r in rows) / answered,
            "truncated": sum(r.reply.finish_reason == "length" for r in rows) / answered,
            "binary": self.metric.binary,
            "refused": isinstance(cause, MocoError) and cause.exit_code == 2 and not ledger.calls,
            "tokens": costs_of(ledger),
            "timings": {**self.timings, "total": time.monotonic() - self._started},
            "warnings": list(self.state.warnings),
            "error": error,
        }
        self.folder.close(units, status=status, **summary)
        finished = RunFinished(run_id=self.id, folder=self.folder.path, status=status, summary=summary)
        self.observers.tell("moco_run_finished", finished)
        head = json.loads(strict.dumps(self.folder.head))  # as it will be read, to the last list
        return RunResult.of(self.folder.path, head, units)

    def _units(self, rows: Sequence[Scored]) -> tuple[Unit, ...]:
        units = tuple(Unit(str(u.id), float(u.score), str(u.subset)) for u in self.metric.units(rows))
        for unit in units:
            if not math.isfinite(unit.score):
                raise PluginError(f"the unit {unit.id!r} has the score {unit.score}")
        return units

    def _extra_metrics(self, rows: Sequence[Scored], subsets: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return the mean over subsets, where there are several, and what the metric tells, as far as it is a number.

        Where the system declines to answer some questions: which share it answers (coverage), and what it lacks of a full
        score on those (selective risk).
        """
        means = [s["mean"] for s in subsets.values()]
        found = {"subset_mean": sum(means) / len(means)} if len(means) > 1 else {}
        given = [r.score.value for r in rows if not r.reply.abstained]
        if len(given) < len(rows):
            found["coverage"] = len(given) / len(rows)
            if known := [v for v in given if v is not None]:
                found["selective_risk"] = 1 - sum(known) / len(known)
        try:
            told = {str(name): float(value) for name, value in self.metric.extra_metrics(rows).items()}
        except Exception as error:
            self._warn_of_metric(error_line(error))
            return found
        for name, value in told.items():
            if math.isfinite(value):
                found[name] = value
            else:
                self._warn_of_metric(f"the extra metric {name!r} is {value}")
        return found

    def _warn_of_metric(self, what: str) -> None:
        self.state.warnings.append(f"metric {self.job.metric.name!r}: {what}")


def _said_on_dev(model: str, example: Example, said: Generation, score: float | None) -> dict[str, Any]:
    """Return a single model's reply to a dev example, in the form that calls have in records."""
    return {
        "id": example.id,
        "model": model,
        "seen": {"messages": [[m.role, m.content] for m in example.question.messages()]},
        "said": {"text": said.text, "finish": said.finish_reason, "reasoning": said.reasoning},
        "prompt_tokens": said.usage.prompt_tokens,
        "completion_tokens": said.usage.completion_tokens,
        "score": score,
    }
