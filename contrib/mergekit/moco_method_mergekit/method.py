"""A mergekit configuration as a method: the merge is an artifact that answers as any model does; dev may decide its numbers.

Goddard et al., "Arcee's MergeKit: A Toolkit for Merging Large Language Models", arXiv 2403.13257.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    EngineOutOfMemory,
    Example,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    System,
    digest,
    plain,
)
from moco_method_mergekit.configuration import Configuration, fingerprint, paths_of
from moco_method_mergekit.options import Options
from moco_method_mergekit.searching import maximise
from moco_toolkit_checkpoints.local import local_engine
from moco_toolkit_merging import Search

__all__ = ["Mergekit", "MergekitSystem", "Written"]

_DRAWING = ("dare", "della")
"""How the names of mergekit's methods begin that draw at random: results of the others do not depend on the run's seed."""
_KEPT = ("device", "replicas", "template", "prices")


@attrs.frozen
class Written:
    """The recipe of a merge that lies in a folder; how it is run is said by the entry of the pool's model."""

    kind: ClassVar[Literal["checkpoint"]] = "checkpoint"
    fingerprint: str
    folder: Path

    def checkpoint(self, sources: Sequence[Model]) -> Mapping[str, Any]:
        entry = local_engine(sources[0]).entry(sources[0])
        return {"model": str(self.folder), **{k: v for k, v in entry.items() if k in _KEPT}}


@attrs.frozen(eq=False, slots=False)
class MergekitSystem(System):
    """Answers with the merged model, asked as any single model is. Its files are the merged checkpoint.

    ``found`` is what a search came to: the configuration with the numbers found, and what was tried.
    """

    merged: Model
    found: Mapping[str, Any] | None = None

    @property
    def model(self) -> Model:
        return self.merged

    async def respond(self, question: Question, context: Context) -> Reply:
        return Reply.of(await context.generate(self.merged, question), model=self.merged.name)

    def state(self) -> Mapping[str, Any]:
        merged = self.merged
        assert isinstance(merged.recipe, Written)
        state = {"name": merged.name, "source": merged.sources[0].name, "fingerprint": merged.recipe.fingerprint}
        return state if self.found is None else {**state, "found": self.found}

    def save_files(self, folder: Path) -> None:
        assert isinstance(self.merged.recipe, Written)
        shutil.copytree(self.merged.recipe.folder, folder / "model")


class Mergekit(Method[Options]):
    """A mergekit configuration as a method: mergekit merges models of the pool, and the merged model answers."""

    Options = Options
    system = MergekitSystem
    level: ClassVar[Literal["weight"]] = "weight"
    title: ClassVar[str] = "MergeKit"
    paper: ClassVar[str] = "arXiv 2403.13257"

    def needs(self) -> Needs:
        return Needs(capabilities={"generate", "weights"}, check=self._problems)

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        if not all(m.can("weights") for m in pool):
            return []  # the core says so
        try:
            configuration = Configuration.read(self.options.config)
            configuration.references(pool)
            for number in self.options.searched:
                configuration.number(number.path)
        except ConfigError as error:
            return list(error.problems)
        return []

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=min(dev, self.options.dev_limit or dev) * self.options.candidates, respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MergekitSystem:
        configuration = Configuration.read(self.options.config)
        references = configuration.references(pool)

        def look() -> tuple[dict[str, list[str]], dict[str, tuple[str, str]]]:
            prints = {name: [fingerprint(m) for m in found] for name, found in references.items()}
            return prints, {name: paths_of(*found) for name, found in references.items()}

        prints, paths = await asyncio.to_thread(look)
        used = [m for found in references.values() for m in found if isinstance(m, Model)]
        merging = Merging(pool, (used or list(pool))[0], prints, paths, self.options.seed, context)
        found = None
        if self.options.search:
            configuration, found = await self._search(configuration, merging, dev)
        how = configuration.data.get("merge_method")
        return MergekitSystem(pool, self.options, await merging.model(configuration, f"mergekit-{how}"), found)

    async def _search(
        self, configuration: Configuration, merging: Merging, dev: Sequence[Example]
    ) -> tuple[Configuration, dict[str, Any]]:
        """Return the configuration with the numbers that do best on dev, and what was tried.

        Numbers that mergekit refuses, or whose merge cannot answer (weights that sum to 0 give no numbers), are worth nothing.
        Raises the first such error if there is nothing else.
        """
        options, context, pool = self.options, merging.context, merging.pool
        search = Search(pool, dev, context, limit=options.dev_limit, total=options.candidates)
        paths, errors = [number.path for number in options.searched], list[Exception]()
        failed: list[dict[str, Any]] = []

        async def score(numbers: Sequence[float], label: str) -> float:
            facts = {"numbers": dict(zip(paths, numbers, strict=True))}
            try:
                model = await merging.model(configuration.with_numbers(facts["numbers"]), label)
            except ConfigError as error:
                problem: Exception = error
            else:
                try:
                    return await search.score(model, label, **facts)
                except EngineOutOfMemory:
                    raise
                except ModelCallError as error:
                    problem = error
            errors.append(problem)
            failed.append({"label": label, "failed": str(problem), **facts})
            context.note(**failed[-1])
            return -math.inf

        try:
            numbers = await maximise(options, [configuration.number(path) for path in paths], score, context)
        finally:
            search.close()
        if not search.trace:
            raise errors[0]
        best = configuration.with_numbers(dict(zip(paths, numbers, strict=True)))
        told = {"numbers": dict(zip(paths, numbers, strict=True)), "score": search.best, "trace": search.trace}
        return best, {"config": plain(best.data), **told, "failed": failed}

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> MergekitSystem:
        """See :meth:`moco_core.Method.restore`; the merged checkpoint lies below ``folder``."""
        source = pool.named(state["source"], "mergekit")
        merged = pool.derive(state["name"], Written(state["fingerprint"], folder / "model"), [source])
        return MergekitSystem(pool, self.options, merged, state.get("found"))


@attrs.frozen
class Merging:
    """What all merges of one fit share: the pool and the model whose entry says how they run, the fingerprints and folders of
    the models that are named, the method's own seed, and the context.
    """

    pool: Pool
    source: Model
    prints: Mapping[str, Sequence[str]]
    paths: Mapping[str, tuple[str, str]]
    seed: int
    context: Context

    async def model(self, configuration: Configuration, name: str) -> Model:
        """Return the merge of a configuration, written at most once ever. Raises ConfigError in mergekit's words."""
        drawing = str(configuration.data.get("merge_method")).startswith(_DRAWING)
        what = {
            "kind": "mergekit",
            "version": metadata.version("mergekit"),
            "config": configuration.translated(lambda name, place: self.prints[name]),
            "seed": self.context.rng("mergekit", self.seed).getrandbits(32) if drawing else 0,
        }

        async def build(folder: Path) -> None:
            file = str(configuration.file or "")
            task = {"data": configuration.data, "file": file, "lines": configuration.lines, "paths": self.paths}
            await apart({**task, "seed": what["seed"]}, folder)
            if error := _told(folder).get("error"):
                raise ConfigError(error)

        folder = await self.context.artifact(what, build)
        if unknown := _told(folder)["unknown"]:
            self.context.warn(f"mergekit: {configuration.at('')}: mergekit does not read {', '.join(unknown)}")
        return self.pool.derive(name, Written(digest(what), folder / "model"), [self.source])


async def apart(task: Mapping[str, Any], folder: Path) -> None:
    """Perform a merge in a process of its own. Raises ModelCallError if that ends before its time."""
    command = [sys.executable, "-m", "moco_method_mergekit.merging", str(folder)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=asyncio.subprocess.DEVNULL, stderr=pipe)
    try:
        _, said = await process.communicate(json.dumps(task).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = (said.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise ModelCallError(f"mergekit: merging ended with exit code {process.returncode}: {last}")


def _told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "mergekit.json").read_text("utf-8"))
    return found
