"""Scoring runs again: each through the same machinery as any run, with a system that says again what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_command_score.stored import Again, ScoredFolder, Stored, read_stored
from moco_core import CapabilityError, ConfigError, DatasetError, Plugin, Pool, RunResult, Sampling, digest, estimate
from moco_core.catalogue import Catalogue
from moco_core.cli.overrides import apply_overrides
from moco_core.config import plugin_of
from moco_core.runs.folder import environment
from moco_core.runs.job import Job, Run
from moco_core.runs.loading import LoadedSplit, load_split, pools_of
from moco_core.runs.observe import Observers
from moco_core.runtime.runtime import Runtime

__all__ = ["Scored", "Scorer"]

_NONE = LoadedSplit(examples=(), fingerprint="")


@attrs.frozen(kw_only=True)
class Scored:
    """A scored run, and what its source came to."""

    source: Stored
    result: RunResult

    def line(self) -> str:
        """Return the folder, the new score with its interval, and the source's."""
        run, found = self.result, estimate(self.result.units, self.result.seed)
        new = f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}], n {found.n}" if found else "no score"
        before = self.source.head.get("score")
        old = f"{before['mean']:.3f}" if before else "no score"
        return f"{run.folder}: {run.metric} {new}; {self.source.head['config']['metric']['name']} {old}"

    def data(self) -> dict[str, Any]:
        """Return both as JSON data."""
        run, found = self.result, estimate(self.result.units, self.result.seed)
        return {
            "folder": str(run.folder),
            "source": str(self.source.folder),
            "label": run.label,
            "metric": run.metric,
            "score": None if found is None else attrs.asdict(found),
            "source_metric": self.source.head["config"]["metric"]["name"],
            "source_score": self.source.head.get("score"),
            "status": run.status,
            "failed": run.failed,
        }


class Scorer:
    """Scores runs by one metric; the models it scores with stay open from run to run."""

    def __init__(self, known: Catalogue, metric: str, overrides: Sequence[str], cache: Path, out: Path | None) -> None:
        data = apply_overrides({"metric": metric}, overrides)
        if others := [key for key in data if key != "metric"]:
            raise ConfigError(f"-o {others[0]}: only the metric has options here, as -o metric.NAME=VALUE")
        self.known, self.cache, self.out = known, cache, out
        self.metric = plugin_of(known, "metric", data["metric"], "metric")
        self._splits: dict[str, tuple[Plugin, LoadedSplit, LoadedSplit]] = {}

    def score(self, folders: Sequence[Path], observers: Observers) -> list[Scored]:
        """Score runs one after the other. Raises ConfigError, CapabilityError, DatasetError or StoreError."""
        if problems := list(self.metric.instance.check()):
            raise CapabilityError("\n".join(f"metric {self.metric.name!r}: {problem}" for problem in problems))
        sources = [read_stored(folder) for folder in dict.fromkeys(folders)]
        splits = [self._data(source) for source in sources]  # what is wrong with one is told before any is scored
        return asyncio.run(self._score(sources, splits, observers))

    async def _score(
        self, sources: Sequence[Stored], splits: Sequence[tuple[Plugin, LoadedSplit, LoadedSplit]], observers: Observers
    ) -> list[Scored]:
        out = []
        async with Runtime(self.cache, [e for pool in pools_of(self.metric) for e in pool.engines]) as runtime:
            for source, (dataset, dev, test) in zip(sources, splits, strict=True):
                head = self._head(source)
                config = head["config"]
                run = Run(
                    # the role decides what is asked on dev beside fitting: nothing here
                    job=Job(
                        position=head["position"],
                        method=Plugin(kind="method", name="again", given={}, options=source, cls=Again),
                        dataset=dataset,
                        metric=self.metric,
                        seed=config["seed"],
                        role="method",
                        label=head["label"],
                    ),
                    pool=Pool([]),
                    dev=dev.examples,
                    test=test.examples,
                    folder=ScoredFolder((self.out or source.folder.parent) / head["id"], head, source),
                    runtime=runtime,
                    observers=observers,
                    sampling=Sampling(**config["sampling"]),
                )
                out.append(Scored(source=source, result=await run.do()))
        return out

    def _data(self, source: Stored) -> tuple[Plugin, LoadedSplit, LoadedSplit]:
        """Read the run's questions again: references alone are recorded, a metric may need more (choices, unit tests)."""
        facts, config = source.head["dataset"], source.head["config"]
        given = {**config["dataset"], "label": facts.get("label") or config["dataset"]["name"]}
        key = digest(given, config["dev"], config["test"])
        if key not in self._splits:
            plugin = plugin_of(self.known, "dataset", given, "dataset")
            dataset = plugin.make()
            dev = load_split(dataset, plugin.name, "dev", config["dev"])
            self._splits[key] = plugin, dev, load_split(dataset, plugin.name, "test", config["test"])
        plugin, dev, test = self._splits[key]
        for split, found, wanted in (("test", test, facts["test_fingerprint"]), ("dev", dev, facts["dev_fingerprint"])):
            if (split == "test" or source.dev) and found.fingerprint != wanted:
                raise DatasetError(
                    f"{source.folder}: the {split} split of {plugin.name!r} is no longer what was asked "
                    f"(fingerprint {found.fingerprint}, the run's {wanted}); its replies cannot be scored again"
                )
        return plugin, dev if source.dev else _NONE, test

    def _head(self, source: Stored) -> dict[str, Any]:
        head, before = source.facts, source.head
        config = {**head["config"], "metric": self.metric.plain()}
        info = self.known.plugins("metric").get(self.metric.name)
        scored_by = environment([info.distribution] if info is not None and info.distribution else [])
        known = head.get("environment", {})
        stem = f"{before['id'].rsplit('-', 1)[0]}-{self.metric.name}"
        return {
            **head,
            "id": f"{stem}-{digest(config, before['id'])[:8]}",
            "config": config,
            "given": {**head.get("given", {}), "metric": {"name": self.metric.name, **self.metric.given}},
            "environment": {**known, "versions": {**known.get("versions", {}), **scored_by["versions"]}},
            "source": {"folder": str(source.folder), "id": before["id"], "metric": before["config"]["metric"]},
        }
