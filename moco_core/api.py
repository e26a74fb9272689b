"""MoCo from Python::

import moco_core as moco

result = moco.run(pool="my_pool", methods=["vote", "debate"], dataset="my_dataset", test=200)
print(result)                                    # the comparison table
system = moco.load(result["vote"].folder)
print(system.ask("What is 3 plus 4?").text)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.catalogue import Catalogue, installed
from moco_core.config import default_cache_path, default_pool, metric_plugin, parse_settings, plugin_of
from moco_core.context import Context
from moco_core.errors import CapabilityError, ConfigError, StoreError, suggest
from moco_core.executors import JobConfig
from moco_core.methods import Method, System
from moco_core.models import Pool
from moco_core.options import Plugin, build
from moco_core.runs.loading import load_split, open_pool, pools_of, single_plugin
from moco_core.runs.observe import Observers
from moco_core.runs.records import read_facts
from moco_core.runs.report import Report, make_reports, shown
from moco_core.runs.results import RunResult
from moco_core.runs.runner import Benchmark
from moco_core.runtime.cache import Cache
from moco_core.runtime.portal import Portal
from moco_core.runtime.systems import Asked, OpenSystem, SystemParts
from moco_core.types import Example, Question, Sampling


def register(cls: Any, name: str | None = None) -> Any:
    """Make an unpackaged pool, method, dataset or metric usable by name in this process; works as a decorator, too.

    Raises PluginConflict if the name is taken.
    """
    return installed().register(cls, name)


@attrs.frozen
class Results:
    """The runs of one call; ``str(results)`` is the comparison table.

    ``results["label"]`` is one run. Where several have a label, its seed, its dataset or both say which one:
    ``results["debate", 1]``, ``results["debate", "arithmetic", 1]``.
    """

    runs: tuple[RunResult, ...]

    @property
    def reports(self) -> list[Report]:
        return make_reports(self.runs)

    def __getitem__(self, key: str | tuple[str | int, ...]) -> RunResult:
        label, *parts = (key,) if isinstance(key, str) else key
        labelled = [r for r in self.runs if r.label == label]
        found = [r for r in labelled if all(part in (r.seed, r.dataset) for part in parts)]
        if len(found) == 1:
            return found[0]
        if not labelled:
            labels = list(dict.fromkeys(r.label for r in self.runs))
            raise KeyError(f"no run {label!r} ({', '.join(labels)}){suggest(str(label), labels)}")
        keys = ", ".join(str((r.label, r.dataset, r.seed)) for r in labelled)
        raise KeyError(f"{key!r} names {len(found) or 'none'} of these runs: {keys}")

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as data, a row per system and seed."""
        from moco_core.cli.tables import seed_rows

        return [row for report in self.reports for row in seed_rows(report)]

    def to_pandas(self) -> Any:
        """Return :meth:`rows` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows())

    def to_csv(self, path: Path | str | None = None) -> str:
        """Return :meth:`rows` as CSV, and write it to ``path``, if one is given."""
        from moco_core.cli.tables import csv_text, written

        return written(csv_text(self.rows()), path)

    def to_latex(self, path: Path | str | None = None) -> str:
        """Return the table in LaTeX (booktabs), and write it to ``path``, if one is given."""
        from moco_core.cli.tables import latex_text, written

        return written(latex_text(self.rows()), path)

    def _repr_html_(self) -> str:
        from moco_core.cli.tables import html_text

        return html_text(self.rows())

    def __str__(self) -> str:
        from moco_core.cli.display import report_text

        return "\n\n".join(report_text(r) for r in shown(self.reports, installed()))


def run(*, cache: Path | None = None, observers: Observers | Sequence[Any] | None = None, **config: Any) -> Results:
    """Run a configuration given as keywords: ``pool``, ``method`` or ``methods``, ``dataset``, ``test``, ``seed``, ...

    ``observers`` are plugins as in a configuration, or an object that tells others.

    Raises ConfigError, PluginError, CapabilityError, DatasetError or StoreError; questions that fail are recorded.
    """
    if observers is not None and not isinstance(observers, Observers):
        config, observers = {**config, "observers": observers}, None
    settings = parse_settings(config, installed())
    job = Benchmark(settings, installed(), cache=cache or default_cache_path(os.environ), observers=observers)
    return Results(tuple(_do(job)))


def run_job(job: JobConfig, *, cache: Cache | None = None, observers: Observers | None = None) -> RunResult:
    """Do one run of a grid in the calling process; executors call it wherever they send a job. Raises what :func:`run` does.

    An open ``cache`` takes the place of the job's file.
    """
    known = installed()
    for path in job.plugins:
        known.register_file(path)
    config = parse_settings(job.config, known)
    one = Benchmark(config, known, cache=cache or job.cache, observers=observers, plugins=job.plugins, only=job)
    (result,) = _do(one)
    return result


def _do(job: Benchmark) -> list[RunResult]:
    """Do the runs to their end, even where an event loop is already running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(job.run())
    with contextlib.closing(Portal()) as portal:
        return portal.call(job.run())


class LoadedSystem:
    """A fitted system for synchronous code: :class:`OpenSystem` with an event loop of its own.

    Its engines open at the first question and stay open until :meth:`close`, or the end of a ``with`` block.
    """

    def __init__(self, parts: SystemParts, cache: Path) -> None:
        self.parts = parts
        self._cache = cache
        self._opened: tuple[Portal, OpenSystem] | None = None
        self._entering = threading.Lock()

    def ask(self, question: str | Question, *, sampling: Sampling | None = None, seed: int | None = None) -> Asked:
        """Answer one question; see :meth:`OpenSystem.ask`. Several threads may ask at the same time. Raises ModelCallError."""
        portal, opened = self._entered()
        return portal.call(opened.ask(question, sampling=sampling, seed=seed))

    def ask_many(self, questions: Sequence[str | Question]) -> list[Asked]:
        """Answer several questions together."""
        portal, opened = self._entered()
        return portal.call(opened.ask_many(questions))

    def _entered(self) -> tuple[Portal, OpenSystem]:
        with self._entering:
            if self._opened is None:
                portal = Portal()
                self._opened = portal, portal.call(OpenSystem(self.parts, self._cache).__aenter__())
            return self._opened

    def close(self) -> None:
        """Close the engines; asking again reopens them."""
        entered, self._opened = self._opened, None
        if entered is not None:
            portal, opened = entered
            portal.call(opened.__aexit__())
            portal.close()

    def __enter__(self) -> LoadedSystem:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open(folder: Path | str, *, plugins: Catalogue | None = None, cache: Path | None = None) -> OpenSystem:
    """Return the fitted system of a run folder, to be entered with ``async with``; see :class:`OpenSystem`.

    Raises StoreError if there is none, PluginError if its plugins are not installed, CapabilityError if its pool changed so
    that the method cannot use it.
    """
    return OpenSystem(_saved(Path(folder), plugins or installed()), cache or default_cache_path(os.environ))


def load(folder: Path | str, *, plugins: Catalogue | None = None, cache: Path | None = None) -> LoadedSystem:
    """Return the fitted system of a run folder, for synchronous code. Raises what :func:`open` raises."""
    return LoadedSystem(_saved(Path(folder), plugins or installed()), cache or default_cache_path(os.environ))


def fitted(
    method: Plugin,
    pool: Plugin,
    metric: Plugin,
    *,
    cache: Path,
    dev: Sequence[Example] = (),
    sampling: Sampling | None = None,
    seed: int = 0,
) -> OpenSystem:
    """Return a system that is fitted on ``dev`` when it is entered. Raises CapabilityError or ConfigError."""
    made, models, judges = method.make(), open_pool(pool), pools_of(metric)
    if judges:  # whether a method scores dev is known when it does: without models to score with it is told then
        metric.instance.check()
    _check_needs(method.name, made, models)

    async def fit(context: Context) -> System:
        system: System = await made.fit(models, dev, context)
        return system

    parts = SystemParts(
        method=made,
        pool=models,
        metric=metric.make(),
        make=fit,
        sampling=sampling or Sampling(),
        seed=seed,
        judges=(*judges, *pools_of(method)),
    )
    return OpenSystem(parts, cache)


def fit(
    *,
    dev: int = 50,
    seed: int = 0,
    choices: bool = False,
    plugins: Catalogue | None = None,
    cache: Path | None = None,
    **config: Any,
) -> OpenSystem:
    """Return a system to be entered with ``async with``, and fitted then, from a configuration given as keywords.

    These are ``method``, ``pool``, ``dataset`` (it is fitted on the first ``dev`` examples of its dev split), ``metric`` (by
    default the dataset's; without a dataset an installed one that reads ``choices``, or texts) and ``sampling``. Raises
    ConfigError, PluginError or CapabilityError.
    """
    known = plugins or installed()
    keys = ("method", "pool", "dataset", "metric", "sampling")
    if unknown := [k for k in config if k not in keys]:
        raise ConfigError([f"{k}: unknown key{suggest(k, keys) or '; known keys: ' + ', '.join(keys)}" for k in unknown])
    examples, datasets = tuple[Example, ...](), list[Plugin]()
    if config.get("dataset") is not None:
        datasets = [plugin_of(known, "dataset", config["dataset"], "dataset")]
        made = datasets[0].make()
        examples = load_split(made, datasets[0].name, "dev", dev).examples
        default = made.facts.metric
    else:
        (default,) = known.able("metric", "reads-choices" if choices else "reads-text")[:1] or (None,)
    if config.get("metric") is None and default is None:
        raise ConfigError("metric: missing; name one that reads answers: -o metric=NAME (moco list metric)")
    return fitted(
        plugin_of(known, "method", config.get("method"), "method"),
        plugin_of(known, "pool", config["pool"] if "pool" in config else default_pool(known), "pool"),
        metric_plugin(known, config.get("metric") or default, datasets),
        dev=examples,
        sampling=build(Sampling, config.get("sampling"), "sampling"),
        seed=seed,
        cache=cache or default_cache_path(os.environ),
    )


def _check_needs(name: str, method: Method[Any], pool: Pool) -> None:
    if problems := method.needs().problems(pool):
        raise CapabilityError("\n".join(f"method {name!r}: {p}" for p in problems))


def _saved(path: Path, known: Catalogue) -> SystemParts:
    base = path / "system" if (path / "system").is_dir() else path
    file = base / "system.json"
    body = read_facts(file, f"{path}: no saved system here (system/system.json); run the method first")
    parts = {"pool": Mapping, "method": Mapping, "metric": Mapping, "sampling": Mapping, "state": Mapping, "seed": int}
    for name, kind in parts.items():
        if not isinstance(body.get(name), kind):
            raise StoreError(f"{file}: {name!r} is missing or damaged; run the method again")
    pool_plugin = plugin_of(known, "pool", body["pool"], "pool")
    told = body["method"]
    method = single_plugin(told["model"]) if told.get("name") == "single" else plugin_of(known, "method", told, "method")
    pool, made = open_pool(pool_plugin), method.make()
    _check_needs(method.name, made, pool)

    async def restore(context: Context) -> System:
        system: System = made.restore(pool, body["state"], base / "files")
        return system

    metric = plugin_of(known, "metric", body["metric"], "metric")
    return SystemParts(
        method=made,
        pool=pool,
        metric=metric.make(),
        make=restore,
        sampling=Sampling(**body["sampling"]),
        seed=body["seed"],
        judges=pools_of(metric, method),
    )
