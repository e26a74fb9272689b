"""Runs: fit on dev, answer test, score, record. A benchmark is a grid of runs over one pool."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from moco_core.catalogue import Catalogue
from moco_core.config import Plugin, RunConfig, plugin_of
from moco_core.context import Context
from moco_core.data import Dataset, Metric, Split
from moco_core.errors import CapabilityError, ConfigError, DatasetError, MocoError, PoolError, StoreError
from moco_core.events import RunFinished, RunProgress, RunStarted
from moco_core.methods import System
from moco_core.models import Pool, PoolSource
from moco_core.runs.answering import Answers, error_line
from moco_core.runs.baseline import Single, SingleOptions
from moco_core.runs.observe import Observers
from moco_core.runs.records import RunFolder, environment, masked
from moco_core.runs.results import Job, RunResult, run_result, summary_of
from moco_core.runtime.runtime import Runtime
from moco_core.runtime.systems import allowed_by
from moco_core.types import Example, canonical, digest

__all__ = ["Benchmark", "Job", "RunResult", "bound_metric", "load_split", "open_pool", "single_plugin"]


@attrs.frozen(kw_only=True)
class _Split:
    examples: tuple[Example, ...]
    fingerprint: str


def open_pool(plugin: Plugin) -> Pool:
    """Describe the models of a pool plugin; nothing is loaded."""
    source: PoolSource[Any] = plugin.make()
    models = source.models()
    if not models:
        raise CapabilityError(f"pool {plugin.name!r} has no models")
    return Pool(models)


def single_plugin(model: str | int) -> Plugin:
    """Return the baseline of one model, by its name or index."""
    options = SingleOptions(model=model)
    return Plugin(kind="method", name="single", given={"model": model}, options=options, cls=Single)


def bound_metric(plugin: Plugin, catalogue: Catalogue, judges: dict[str, Pool], *, scores: bool = True) -> Metric[Any]:
    """Make a metric and hand it the models it scores with, from ``judges``, where a pool it opens is added.

    Without ``scores`` nobody may ask for scores, and a metric without models will do. Raises ConfigError or
    CapabilityError if it has none otherwise, or none that fit.
    """
    metric: Metric[Any] = plugin.make()
    if metric.needs_pool:
        given: Plugin | None = metric.options.pool
        if given is None:
            if not scores:
                return metric
            raise ConfigError(
                f"metric.pool: missing; {plugin.name} scores with a model, name its pool: "
                f"-m {plugin.name} -o 'metric.pool={{name: transformers, models: [MODEL]}}'"
            )
        key = canonical(given.plain())
        if key not in judges:  # one pool for all runs, so that its models are loaded once
            judges[key] = open_pool(given)
        metric.bind(judges[key])
    return metric


def load_split(dataset: Dataset[Any], name: str, split: Split, limit: int | None) -> _Split:
    """Read a split, or its first ``limit`` examples and what completes the last one's group; check ids, fingerprint it.

    Raises DatasetError.
    """
    examples: list[Example] = []
    seen: set[str] = set()
    hasher = hashlib.sha256()
    for example in dataset.examples(split):
        if limit is not None and len(examples) >= limit:
            # examples that score together count only together
            if not examples or not example.group or example.group != examples[-1].group:
                break
        if example.id in seen:
            raise DatasetError(f"dataset {name!r}, {split} split: two examples have the id {example.id!r}")
        seen.add(example.id)
        question = example.question
        hasher.update(
            canonical([question.id, question.text(), question.system, example.references, example.answer]).encode()
        )
        examples.append(example)
    return _Split(examples=tuple(examples), fingerprint=hasher.hexdigest()[:32])


class Benchmark:
    """Does the runs of a configuration, one after the other, over one open pool, one cache and one scheduler."""

    def __init__(
        self,
        config: RunConfig,
        catalogue: Catalogue,
        *,
        cache: Path | None,
        observers: Observers | None = None,
        on_result: Callable[[RunResult], None] = lambda result: None,
    ) -> None:
        self.config = config
        self.catalogue = catalogue
        self.cache_path = cache
        self.observers = observers or Observers()
        self.on_result = on_result
        self.pool = open_pool(config.pool)
        self._datasets = {id(p): p.make() for p in config.datasets}
        self._splits: dict[tuple[int, str], _Split] = {}
        self._judges: dict[str, Pool] = {}
        self.jobs = self._plan()

    # ---------------------------------------------------------------- before the work

    def _plan(self) -> list[Job]:
        jobs: list[Job] = []
        for dataset in self.config.datasets:
            metric = self.metric_of(dataset)
            for seed in self.config.seeds:
                if self.config.settings.baselines:
                    jobs += [
                        Job(
                            method=single_plugin(m.name),
                            dataset=dataset,
                            metric=metric,
                            seed=seed,
                            role="baseline",
                            label=m.name,
                        )
                        for m in self.pool
                    ]
                labels = _labels(self.config.methods)
                jobs += [
                    Job(method=m, dataset=dataset, metric=metric, seed=seed, role="method", label=label)
                    for m, label in zip(self.config.methods, labels, strict=True)
                ]
        return jobs

    def metric_of(self, dataset: Plugin) -> Plugin:
        """Return the configured metric, or the dataset's default one."""
        if self.config.metric is not None:
            return self.config.metric
        name = self._datasets[id(dataset)].facts.metric
        return plugin_of(self.catalogue, "metric", name, f"metric (default of dataset {dataset.name!r})")

    def problems(self) -> list[str]:
        """Return what the pools cannot do for the configured methods and metrics, one line each."""
        out = []
        for method in self.config.methods:
            needs = method.make().needs()
            out += [f"method {method.name!r}: {p}" for p in needs.problems(self.pool)]
        for plugin in {id(j.metric): j.metric for j in self.jobs}.values():
            try:
                self.metric(plugin)
            except (ConfigError, CapabilityError) as error:
                out += str(error).splitlines()
        return out

    def metric(self, plugin: Plugin) -> Metric[Any]:
        """Make a metric, its models those that other metrics of this benchmark have opened already."""
        return bound_metric(plugin, self.catalogue, self._judges)

    def split(self, dataset: Plugin, split: Split) -> _Split:
        """Read a split once."""
        key = (id(dataset), split)
        if key not in self._splits:
            limit = self.config.settings.dev if split == "dev" else self.config.settings.test
            self._splits[key] = load_split(self._datasets[id(dataset)], dataset.name, split, limit)
        loaded = self._splits[key]
        if split == "test" and not loaded.examples:
            raise DatasetError(f"dataset {dataset.name!r}: its test split is empty")
        return loaded

    # ---------------------------------------------------------------- the work

    async def run(self) -> list[RunResult]:
        """Do all runs. A run that fails leaves the others alone; a store that cannot be written stops everything, as does a
        pool that cannot be opened.
        """
        if problems := self.problems():
            raise CapabilityError("\n".join(problems))
        for observer in self.config.observers:
            self.observers.add(observer)
        for dataset in self.config.datasets:
            dev, test = self.split(dataset, "dev"), self.split(dataset, "test")
            shared = {e.id for e in dev.examples} & {e.id for e in test.examples}
            if shared:
                raise DatasetError(f"dataset {dataset.name!r}: {sorted(shared)[0]!r} is in both dev and test")
        results: list[RunResult] = []
        engines = [e for pool in (self.pool, *self._judges.values()) for e in pool.engines]
        async with Runtime(self.cache_path, engines) as runtime:
            for job in self.jobs:
                result = await self._run_job(job, runtime)
                results.append(result)
                self.on_result(result)
        return results

    async def _run_job(self, job: Job, runtime: Runtime) -> RunResult:
        dev, test = self.split(job.dataset, "dev"), self.split(job.dataset, "test")
        head = self._head(job, dev, test)
        run_id = head["id"]
        folder = RunFolder(Path(self.config.settings.out) / run_id, head)
        metric = self.metric(job.metric)
        session = runtime.state(
            metric,
            seed=job.seed,
            sampling=self.config.sampling,
            in_flight=self.config.settings.in_flight,
            on_note=folder.note,
            on_progress=lambda what, done, total, note: self.observers.tell(
                "moco_run_progress", RunProgress(run_id=run_id, phase=what, done=done, total=total, note=note)
            ),
        )
        self.observers.tell("moco_run_started", RunStarted(run_id=run_id, folder=folder.path, config=head["config"]))
        started = time.monotonic()
        timings: dict[str, float] = {}
        work = Answers(label=job.label, session=session, folder=folder, observers=self.observers, run_id=run_id)
        status: Literal["finished", "failed", "interrupted"] = "failed"
        error = ""
        dev_mean: float | None = None
        try:
            method = job.method.make()
            allowed = allowed_by(method)
            fit_context = session.context("fit", allowed=allowed)
            system = await method.fit(self.pool, dev.examples, fit_context)
            timings["fit"] = time.monotonic() - started
            self._save(job, system, folder)
            if job.role == "baseline" and dev.examples:
                dev_mean = await self._dev_mean(job, fit_context, dev.examples)
            answering = time.monotonic()
            await work.answer(system, test.examples, allowed)
            timings["respond"] = time.monotonic() - answering
            status = "failed" if work.failed else "finished"
            error = work.first_error
        except (KeyboardInterrupt, asyncio.CancelledError):
            status, error = "interrupted", "stopped by the user"
            raise
        except (StoreError, PoolError) as caught:
            status, error = "interrupted", error_line(caught)
            raise
        except Exception as caught:
            error = error_line(caught)
            work.first_error = error
            work.failed = len(test.examples)
            if not isinstance(caught, MocoError):
                session.warnings.append(f"{job.label}: {error}")
            work.cause = caught
        finally:
            result = run_result(job, work, status, dev_mean, len(test.examples), time.monotonic() - started)
            summary = summary_of(result, session, timings, error)
            folder.close(status=status, **summary)
            self.observers.tell(
                "moco_run_finished",
                RunFinished(run_id=run_id, folder=folder.path, status=status, summary=summary),
            )
        return result

    async def _dev_mean(self, job: Job, context: Context, examples: Sequence[Example]) -> float:
        model = self.pool.named(job.label)
        return (await context.evaluate([model], examples, label=f"dev {model.name}")).means()[0]

    def _head(self, job: Job, dev: _Split, test: _Split) -> dict[str, Any]:
        config = {
            "pool": self.config.pool.plain(),
            "method": job.method.plain(),
            "dataset": job.dataset.plain(),
            "metric": job.metric.plain(),
            "seed": job.seed,
            "sampling": attrs.asdict(self.config.sampling),
            "dev": self.config.settings.dev,
            "test": self.config.settings.test,
        }
        given = {
            "pool": {"name": self.config.pool.name, **self.config.pool.given},
            "method": {"name": job.method.name, **job.method.given},
            "dataset": {"name": job.dataset.name, **job.dataset.given},
        }
        versions = {}
        for plugin in (self.config.pool, job.method, job.dataset, job.metric):
            card = self.catalogue.cards(plugin.kind).get(plugin.name)
            if card is not None and card.distribution:
                versions[card.distribution] = card.version
        name = job.label if job.role == "method" else f"single-{job.label}"
        short = digest(config)[:8]
        return {
            "id": _slug(f"{job.dataset.name}-{name}-s{job.seed}-{short}"),
            "role": job.role,
            "label": job.label,
            "config": _public(config),
            "given": _public(given),
            "models": [
                {"name": m.name, "fingerprint": m.fingerprint, "capabilities": sorted(m.capabilities)}
                for m in self.pool
            ],
            "dataset": {
                "dev": len(dev.examples),
                "test": len(test.examples),
                "dev_fingerprint": dev.fingerprint,
                "test_fingerprint": test.fingerprint,
                "notes": dict(self._datasets[id(job.dataset)].notes()),
            },
            "environment": environment(versions),
        }

    def _save(self, job: Job, system: System, folder: RunFolder) -> None:
        made_from = _public(
            {"pool": self.config.pool.plain(), "method": job.method.plain(), "metric": job.metric.plain()}
        )
        sampling = attrs.asdict(self.config.sampling)
        files = folder.save_system({**made_from, "sampling": sampling, "seed": job.seed, "state": system.state()})
        system.save_files(files)


def _labels(methods: Sequence[Plugin]) -> list[str]:
    """Name the methods of a grid: their plugin's name, numbered where one appears twice."""
    names = [m.name for m in methods]
    out = []
    for index, name in enumerate(names):
        out.append(name if names.count(name) == 1 else f"{name}#{names[: index + 1].count(name)}")
    return out


def _public(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's sections with the keys of its pools masked: the run's own, and the one a metric scores with.

    A method's options hold no secrets, and must be restored as they were.
    """
    out = dict(sections)
    out["pool"] = masked(out["pool"])
    if out.get("metric", {}).get("pool"):
        out["metric"] = {**out["metric"], "pool": masked(out["metric"]["pool"])}
    return out


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
