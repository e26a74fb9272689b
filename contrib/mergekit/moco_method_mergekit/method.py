"""A mergekit configuration as a method: the merged checkpoint is an artifact, and answers as any model of the pool does.

Goddard et al., "Arcee's MergeKit: A Toolkit for Merging Large Language Models", arXiv 2403.13257.
"""

from __future__ import annotations

import asyncio
import json
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
)
from moco_method_mergekit.configuration import Configuration, fingerprint, paths_of
from moco_method_mergekit.options import Options
from moco_toolkit_checkpoints.local import local_engine

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
    """Answers with the merged model, asked as any single model is. Its files are the merged checkpoint."""

    merged: Model

    @property
    def model(self) -> Model:
        return self.merged

    async def respond(self, question: Question, context: Context) -> Reply:
        return Reply.of(await context.generate(self.merged, question), model=self.merged.name)

    def state(self) -> Mapping[str, Any]:
        merged = self.merged
        assert isinstance(merged.recipe, Written)
        return {"name": merged.name, "source": merged.sources[0].name, "fingerprint": merged.recipe.fingerprint}

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
            Configuration.read(self.options.config).references(pool)
        except ConfigError as error:
            return list(error.problems)
        return []

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=0, respond=1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MergekitSystem:
        configuration = Configuration.read(self.options.config)
        references = configuration.references(pool)

        def look() -> tuple[dict[str, list[str]], dict[str, tuple[str, str]]]:
            prints = {name: [fingerprint(m) for m in found] for name, found in references.items()}
            return prints, {name: paths_of(*found) for name, found in references.items()}

        prints, paths = await asyncio.to_thread(look)
        how = str(configuration.data.get("merge_method"))
        drawing = how.startswith(_DRAWING)
        what = {
            "kind": "mergekit",
            "version": metadata.version("mergekit"),
            "config": configuration.translated(lambda name, place: prints[name]),
            "seed": context.rng("mergekit", self.options.seed).getrandbits(32) if drawing else 0,
        }

        async def build(folder: Path) -> None:
            file = str(configuration.file or "")
            task = {"data": configuration.data, "file": file, "lines": configuration.lines, "paths": paths}
            await apart({**task, "seed": what["seed"]}, folder)
            if error := _told(folder).get("error"):
                raise ConfigError(error)

        folder = await context.artifact(what, build)
        if unknown := _told(folder)["unknown"]:
            context.warn(f"mergekit: {configuration.at('')}: mergekit does not read {', '.join(unknown)}")
        used = [m for found in references.values() for m in found if isinstance(m, Model)]
        state = {"name": f"mergekit-{how}", "source": (used or list(pool))[0].name, "fingerprint": digest(what)}
        return self.restore(pool, state, folder)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> MergekitSystem:
        """See :meth:`moco_core.Method.restore`; the merged checkpoint lies below ``folder``."""
        source = pool.named(state["source"], "mergekit")
        recipe = Written(state["fingerprint"], folder / "model")
        return MergekitSystem(pool, self.options, pool.derive(state["name"], recipe, [source]))


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
