"""Benchmarks: a grid of runs over one pool, one cache and one scheduler. A single run is a grid, too."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.catalogue import Catalogue
from moco_core.config import RunConfig, plugin_of
from moco_core.data import Split
from moco_core.errors import CapabilityError, ConfigError, DatasetError, MocoError
from moco_core.events import BenchmarkFinished, BenchmarkStarted, Status
from moco_core.executors import Executor, JobConfig
from moco_core.models import Pool
from moco_core.options import Plugin, plain
from moco_core.runs.executing import InProcess
from moco_core.runs.folder import FolderBusy, RunFolder, environment
from moco_core.runs.job import Job, Run
from moco_core.runs.loading import LoadedSplit, load_split, open_pool, pools_of, priced, single_plugin
from moco_core.runs.observe import Observers
from moco_core.runs.report import make_reports
from moco_core.runs.results import RunResult
from moco_core.runtime.budget import Budget
from moco_core.runtime.cache import Cache
from moco_core.runtime.runtime import Runtime
from moco_core.types import digest

_PATIENCE = 0.5
"""Seconds between two looks at a run folder that another process writes."""


class Benchmark:
    """Does the runs of a configuration, or ``only`` one that another benchmark described.

    ``on_result`` gets each result as its run ends; ``plugins`` are the files given as ``--plugin``.
    """

    def __init__(
        self,
        config: RunConfig,
        catalogue: Catalogue,
        *,
        cache: Cache | Path | None,
        observers: Observers | None = None,
        on_result: Callable[[RunResult], None] = lambda result: None,
        plugins: Sequence[Path] = (),
        only: JobConfig | None = None,
    ) -> None:
        self.config = config
        self.catalogue = catalogue
        self.cache = cache
        self.observers = observers or Observers()
        self.on_result = on_result
        self.plugins = tuple(plugins)
        self.pool = priced(open_pool(config.pool), config.settings.prices)
        self._spent = None if only is None else only.spent
        if only is None and config.executor is not None and config.settings.budget is not None:
            self._spent = (Path(config.settings.out) / f".spent-{os.getpid()}-{time.time_ns()}").resolve()
        given = config.settings.budget
        self.budget = None if given is None else Budget(str(given), self._spent)
        self._datasets = {id(p): p.make() for p in config.datasets}
        self._splits: dict[tuple[int, str], LoadedSplit] = {}
        self.jobs = self._plan() if only is None else [self._the_one(only)]
        if config.settings.prices:
            self._price(whole=only is None)

    # ---------------------------------------------------------------- before the work

    def _plan(self) -> list[Job]:
        jobs: list[Job] = []
        makers = self.catalogue.able("method", "control")
        # a pool may have helpers that write no text: encoders, reward models
        singles = [m for m in self.pool if m.can("generate")] if self.config.settings.baselines else []
        for dataset in self.config.datasets:
            metric = self.metric_of(dataset)
            for seed in self.config.seeds:
                systems = [(single_plugin(m.name), "baseline", m.name) for m in singles]
                systems += [
                    (m, "control" if m.name in makers else "method", m.label)
                    for m in (*self.config.methods, *self.config.controls)
                ]
                jobs += [
                    Job(
                        position=len(jobs) + i,
                        method=method,
                        dataset=dataset,
                        metric=metric,
                        seed=seed,
                        role=role,
                        label=label,
                    )
                    for i, (method, role, label) in enumerate(systems)
                ]
        return jobs

    def _the_one(self, only: JobConfig) -> Job:
        """Return the run of this small grid that another benchmark described, as it is called there."""
        (job,) = [j for j in self._plan() if j.role != "baseline" or j.label == only.label]
        return attrs.evolve(job, position=only.position, role=only.role, label=only.label)

    def metric_of(self, dataset: Plugin) -> Plugin:
        """Return the configured metric, or the dataset's default one."""
        if self.config.metric is not None:
            return self.config.metric
        name = self._datasets[id(dataset)].facts.metric
        return plugin_of(self.catalogue, "metric", name, f"metric (default of dataset {dataset.name!r})")

    def _price(self, *, whole: bool) -> None:
        """Set the prices of models that methods and metrics hold (judges) too; of the ``whole`` grid every name is known.

        Raises ConfigError.
        """
        prices = self.config.settings.prices
        pools = (self.pool, *pools_of(*(plugin for job in self.jobs for plugin in (job.method, job.metric)), prices=prices))
        known = {name for pool in pools for name in pool.names}
        for name in prices:
            if whole and name not in known:
                self.pool.named(name, "prices")

    def problems(self) -> list[str]:
        """Return what the pools cannot do for the configured methods and metrics, and what metrics lack, one line each."""
        out = []
        if self.budget is not None:
            if not self.budget.tokens and (free := [m.name for m in self.pool if m.prices is None]):
                out.append(f"budget: {', '.join(free)} has no price; name it under prices, or limit tokens ('500k tokens')")
        for method in (*self.config.methods, *self.config.controls):
            needs = method.make().needs()
            out += [f"method {method.label!r}: {p}" for p in needs.problems(self.pool)]
        for plugin in {id(j.metric): j.metric for j in self.jobs}.values():
            try:
                out += [f"metric {plugin.name!r}: {p}" for p in plugin.instance.check()]
                self._held()
            except (ConfigError, CapabilityError) as error:
                out += str(error).splitlines()
        return out

    def _held(self) -> tuple[Pool, ...]:
        """The pools that methods and metrics hold in their options."""
        return pools_of(*(plugin for job in self.jobs for plugin in (job.method, job.metric)))

    def split(self, dataset: Plugin, split: Split) -> LoadedSplit:
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
        """Do all runs and return what they came to, in their order.

        A run that fails leaves the others alone; a store that cannot be written stops everything, as does a pool that cannot
        be opened, and a run folder that another process writes (with ``wait`` in the configuration it is waited for).
        """
        if problems := self.problems():
            raise CapabilityError("\n".join(problems))
        heads = self._heads()
        for plugin in self.config.observers:
            self.observers.add(plugin)
        out = Path(self.config.settings.out)
        started = BenchmarkStarted(runs=len(self.jobs), models=len(self.pool), folder=out)
        self.observers.tell("moco_benchmark_started", started)
        results: list[RunResult] = []
        status: Status = "interrupted"
        try:
            await self._do(heads, results)
            status = "finished" if all(r.status == "finished" for r in results) else "failed"
        except MocoError:
            status = "failed"
            raise
        finally:
            results.sort(key=lambda r: r.position)
            reports = tuple(r.data() for r in make_reports(results))
            finished = BenchmarkFinished(folder=out, status=status, reports=reports)
            self.observers.tell("moco_benchmark_finished", finished)
        return results

    async def _do(self, heads: Mapping[int, dict[str, Any]], results: list[RunResult]) -> None:
        """Hand the jobs to the executor and add what they came to."""
        given, jobs = self.config.executor, {job.position: job for job in self.jobs}
        executor: Executor[Any] = given.make() if given else InProcess(self.config.settings.parallel)
        executor.tell = self.observers.tell
        engines = [e for pool in (self.pool, *self._held()) for e in pool.engines]
        async with Runtime(self.cache, engines) as runtime:

            async def run(job: JobConfig) -> RunResult:
                return await self._run(jobs[job.position], heads[job.position], runtime)

            done = executor.map([self._described(job, heads[job.position]) for job in self.jobs], run)
            try:
                async for result in done:
                    results.append(result)
                    self.on_result(result)
            finally:
                if isinstance(done, AsyncGenerator):
                    await done.aclose()
                if given and self._spent:
                    self._spent.unlink(missing_ok=True)

    async def _run(self, job: Job, head: dict[str, Any], runtime: Runtime) -> RunResult:
        run = Run(
            job=job,
            pool=self.pool,
            dev=self.split(job.dataset, "dev").examples,
            test=self.split(job.dataset, "test").examples,
            folder=await self._folder(head),
            runtime=runtime,
            observers=self.observers,
            sampling=self.config.settings.sampling,
            in_flight=self.config.settings.in_flight,
            budget=self.budget,
        )
        return await run.do()

    async def _folder(self, head: dict[str, Any]) -> RunFolder:
        """Open a run's folder; where another process writes it, wait or refuse."""
        path, told = Path(self.config.settings.out) / head["id"], False
        while True:
            try:
                return RunFolder(path, head)
            except FolderBusy as busy:
                if not self.config.settings.wait:
                    raise _refusal(busy) from None
                if not told:
                    self.observers.report(f"{busy}; waiting for its end")
                told = True
            await asyncio.sleep(_PATIENCE)

    # ---------------------------------------------------------------- what a run is

    def _heads(self) -> dict[int, dict[str, Any]]:
        """Return the heads of all run folders by position, once none stands in the way of a run.

        Raises DatasetError or FolderBusy.
        """
        heads: dict[int, dict[str, Any]] = {}
        for job in self.jobs:
            dev, test = self.split(job.dataset, "dev"), self.split(job.dataset, "test")
            if shared := {e.id for e in dev.examples} & {e.id for e in test.examples}:
                raise DatasetError(f"dataset {job.dataset.name!r}: {sorted(shared)[0]!r} is in both dev and test")
            head = heads[job.position] = self._head(job, dev, test)
            path = Path(self.config.settings.out) / head["id"]
            if not self.config.settings.wait and (busy := FolderBusy.of(path)):
                raise _refusal(busy)
        return heads

    def _head(self, job: Job, dev: LoadedSplit, test: LoadedSplit) -> dict[str, Any]:
        settings, parts = self.config.settings, (self.config.pool, job.method, job.dataset, job.metric)
        config: dict[str, Any] = {
            **{plugin.kind: plugin.plain() for plugin in parts},
            "seed": job.seed,
            "sampling": attrs.asdict(settings.sampling),
            "dev": settings.dev,
            "test": settings.test,
        }
        plugins = (self.catalogue.plugins(plugin.kind).get(plugin.name) for plugin in parts)
        name = f"single-{job.label}" if job.role == "baseline" else job.label
        return {
            "id": _slug(f"{job.dataset.label}-{name}-s{job.seed}-{digest(config)[:8]}"),
            "role": job.role,
            "label": job.label,
            "position": job.position,
            "config": config,
            "given": {plugin.kind: {"name": plugin.name, **plugin.given} for plugin in parts},
            "rule": attrs.asdict(settings.verdict),
            "models": [
                {"name": m.name, "fingerprint": m.fingerprint, "capabilities": sorted(m.capabilities)}
                for m in self.pool
            ],
            "dataset": {
                "label": job.dataset.label,
                "dev": len(dev.examples),
                "test": len(test.examples),
                "dev_fingerprint": dev.fingerprint,
                "test_fingerprint": test.fingerprint,
                "chance": _chance(test),
                "notes": dict(self._datasets[id(job.dataset)].notes()),
            },
            "environment": {
                **environment(info.distribution for info in plugins if info is not None and info.distribution),
                "engines": [dict(facts) for engine in self.pool.engines if (facts := engine.facts())],
            },
        }

    def _described(self, job: Job, head: dict[str, Any]) -> JobConfig:
        settings = self.config.settings
        same = ("out", "in_flight", "wait", "budget", "prices", "verdict")
        rest = {name: plain(getattr(settings, name)) for name in same} | {"baselines": job.role == "baseline"}
        config = {**head["config"], "dataset": {**head["config"]["dataset"], "label": job.dataset.label}, **rest}
        if job.role == "baseline":  # a single model is no method that a configuration could name
            del config["method"]
        return JobConfig(
            position=job.position,
            role=job.role,
            label=job.label,
            config=config,
            cache=self.cache.path if isinstance(self.cache, Cache) else self.cache,
            plugins=self.plugins,
            spent=self._spent,
        )


def _chance(test: LoadedSplit) -> float:
    """Return the expected share of questions that a guess gets right: those whose answers are a closed set count alone."""
    sizes = (len(e.question.choices or e.question.labels) for e in test.examples)
    return sum(1 / size for size in sizes if size) / max(len(test.examples), 1)


def _refusal(busy: FolderBusy) -> FolderBusy:
    return FolderBusy(f"{busy}; wait for its end with --wait, or choose another place with --out")


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
