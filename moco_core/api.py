"""MoCo from Python::

import moco_core as moco

result = moco.run(pool="tiny", methods=["majority_vote", "cascade"], dataset="skills", test=200)
print(result)                                    # the comparison table
system = moco.load(result["majority_vote"].folder)
print(system.ask("What is 3 plus 4?").text)
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.catalogue import Catalogue, installed
from moco_core.config import Plugin, parse_settings, plugin_of
from moco_core.context import Context
from moco_core.errors import CapabilityError, StoreError, suggest
from moco_core.methods import System
from moco_core.models import Pool
from moco_core.options import build
from moco_core.runs.observe import Observers
from moco_core.runs.report import Report, make_reports
from moco_core.runs.results import RunResult
from moco_core.runs.runner import Benchmark, open_pool
from moco_core.runtime.cache import Cache, default_cache_path
from moco_core.runtime.scheduler import Scheduler
from moco_core.runtime.session import CallRecord, Session
from moco_core.types import Question, Reply, Sampling

__all__ = ["Asked", "LoadedSystem", "Results", "load", "register", "run"]


def register(cls: Any, name: str | None = None) -> Any:
    """Make an unpackaged pool, method, dataset or metric usable by name in this process; usable as a decorator.

    Raises PluginConflict if the name is taken.
    """
    return installed().register(cls, name)


@attrs.frozen
class Results:
    """The runs of one call. ``results["label"]`` is one run; ``str(results)`` is the comparison table."""

    runs: tuple[RunResult, ...]

    @property
    def reports(self) -> list[Report]:
        return make_reports(self.runs)

    def __getitem__(self, label: str) -> RunResult:
        for result in self.runs:
            if result.job.label == label:
                return result
        labels = [r.job.label for r in self.runs]
        raise KeyError(f"no run {label!r} ({', '.join(labels)}){suggest(label, labels)}")

    def __str__(self) -> str:
        from moco_core.cli.display import report_text

        return "\n\n".join(report_text(r) for r in self.reports)


def run(*, cache: Path | None = None, observers: Observers | None = None, **config: Any) -> Results:
    """Run a configuration given as keywords: ``pool``, ``method`` or ``methods``, ``dataset``, ``test``, ``seed``, ...

    Raises ConfigError, PluginError, CapabilityError, DatasetError or StoreError; questions that fail are recorded.
    """
    settings = parse_settings(config, installed())
    job = Benchmark(settings, installed(), cache=cache or default_cache_path(os.environ), observers=observers)
    return Results(tuple(asyncio.run(job.run())))


@attrs.frozen(kw_only=True)
class Asked:
    """The answer to one question and every call that led to it."""

    reply: Reply
    calls: tuple[CallRecord, ...]

    @property
    def text(self) -> str:
        return self.reply.text


@attrs.frozen(kw_only=True)
class LoadedSystem:
    """A system and what it needs to be asked: made by :func:`load`, or from a method that needs no fitting."""

    system: System
    metric: Plugin
    sampling: Sampling
    seed: int
    allowed: frozenset[str]

    def ask(self, question: str | Question, *, cache: Path | None = None) -> Asked:
        """Answer one question. Raises ModelCallError."""
        return self.ask_many([question], cache=cache)[0]

    def ask_many(self, questions: Sequence[str | Question], *, cache: Path | None = None) -> list[Asked]:
        """Answer several questions together."""
        return asyncio.run(self._ask(questions, cache or default_cache_path(os.environ)))

    async def _ask(self, questions: Sequence[str | Question], cache_path: Path) -> list[Asked]:
        items = [q if isinstance(q, Question) else Question(id=f"ask-{i}", prompt=q) for i, q in enumerate(questions)]
        cache = Cache(cache_path)
        try:
            async with Scheduler(cache) as scheduler:
                session = Session(
                    scheduler=scheduler, metric=self.metric.make(), seed=self.seed, sampling=self.sampling
                )
                root = Context(session, phase="respond", allowed=self.allowed)

                async def one(question: Question, context: Context) -> Asked:
                    reply = await self.system.respond(question, context)
                    return Asked(reply=reply, calls=tuple(context.calls))

                return await root.each(items, one)
        finally:
            cache.close()


def load(folder: Path | str, *, plugins: Catalogue | None = None) -> LoadedSystem:
    """Load the fitted system of a run folder.

    Raises StoreError if there is none, PluginError if its plugins are not installed, CapabilityError if its pool changed so
    that the method cannot use it.
    """
    known = plugins or installed()
    path = Path(folder)
    base = path / "system" if (path / "system").is_dir() else path
    try:
        body = json.loads((base / "system.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path}: no saved system here (system/system.json); run the method first") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{base}/system.json: cannot be read: {error}") from None
    pool_plugin = plugin_of(known, "pool", body["pool"], "pool")
    method = _method_of(known, body["method"])
    pool = open_pool(pool_plugin)
    return _loaded(method, pool, body, base / "files", plugin_of(known, "metric", body["metric"], "metric"))


def _method_of(known: Catalogue, body: Mapping[str, Any]) -> Plugin:
    if body.get("name") == "single":
        from moco_core.runs.baseline import Single, SingleOptions

        given = {"model": body["model"]}
        return Plugin(kind="method", name="single", given=given, options=build(SingleOptions, given), cls=Single)
    return plugin_of(known, "method", body, "method")


def _loaded(method: Plugin, pool: Pool, body: Mapping[str, Any], files: Path, metric: Plugin) -> LoadedSystem:
    made = method.make()
    needs = made.needs()
    if problems := needs.problems(pool):
        raise CapabilityError("\n".join(f"method {method.name!r}: {p}" for p in problems))
    return LoadedSystem(
        system=made.restore(pool, body["state"], files),
        metric=metric,
        sampling=Sampling(**body["sampling"]),
        seed=body["seed"],
        allowed=needs.declared | {"generate"},
    )
