"""Opening one system: described from its folder or its configuration, nothing loaded and nobody asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import attrs

from moco_core import ConfigError, Example, Model, Plugin, PoolSource, plain
from moco_core.api import fit
from moco_core.api import open as open_run
from moco_core.catalogue import installed
from moco_core.types import canonical, digest
from moco_pool_systems.options import Entry

__all__ = ["Member", "Shared", "open_member"]

T = TypeVar("T")

_OPENING: ContextVar[tuple[Path, ...]] = ContextVar("moco_systems_opening", default=())
"""The run folders that are being opened around this one."""


@attrs.frozen(eq=False)
class Member:
    """A system that can be opened: its parts, what identifies it, and the one model it is, if it is known to be one."""

    name: str
    parts: Any
    fingerprint: str
    model: Model | None = None


class Shared:
    """The pools of several systems: equal ones are opened once, so that their weights are loaded once."""

    def __init__(self) -> None:
        self._opened: list[tuple[Plugin, PoolSource[Any]]] = []

    def __call__(self, plugin: Plugin) -> Plugin:
        """Return a pool that describes the same models whoever opens it."""
        source = next((source for known, source in self._opened if known == plugin), None)
        if source is None:
            source = plugin.make()
            self._opened.append((plugin, source))
        models = tuple(source.pool)

        class Opened(PoolSource[Any]):
            Options = plugin.cls.Options

            def models(self) -> Sequence[Model]:
                return models

        return attrs.evolve(plugin, cls=Opened)


def open_member(entry: Entry, shared: Shared) -> Member:
    """Return the system of one entry. Raises what opening a run or checking a configuration raises."""
    return _restored(entry) if entry.run else _to_fit(entry, shared)


def _restored(entry: Entry) -> Member:
    folder = Path(entry.run)
    with _around(folder):
        parts = open_run(folder).parts
    base = folder / "system" if (folder / "system").is_dir() else folder
    saved = json.loads((base / "system.json").read_text(encoding="utf-8"))
    said = [saved["method"], _version(saved["method"]["name"]), saved["metric"], saved["state"], saved["seed"]]
    mark = digest("system", said, _files(base / "files"), _members(parts.pool))
    nobody: Any = None  # a saved system is restored without a context
    system = _at_once(parts.make(nobody))
    return Member(entry.name or _label(folder, saved["method"]), parts, mark, system.model)


@contextmanager
def _around(folder: Path) -> Iterator[None]:
    """Refuse a folder whose system is being opened already: it would be made of itself."""
    above, here = _OPENING.get(), folder.resolve()
    if here in above:
        chain = [path.name for path in (*above[above.index(here) :], here)]
        raise ConfigError(f"a system cannot be made of itself: {' is made of '.join(chain)}")
    token = _OPENING.set((*above, here))
    try:
        yield
    finally:
        _OPENING.reset(token)


def _to_fit(entry: Entry, shared: Shared) -> Member:
    assert entry.method is not None and entry.pool is not None
    sections = {"method": entry.method, "pool": shared(entry.pool), "dataset": entry.dataset, "metric": entry.metric}
    given: dict[str, Any] = {kind: plugin for kind, plugin in sections.items() if plugin is not None}
    sampling = plain(entry.sampling)
    parts = fit(dev=entry.dev, seed=entry.seed, sampling=sampling, **given).parts
    dev = [] if entry.dataset is None else islice(entry.dataset.make().examples("dev"), entry.dev)
    said = [entry.method.plain(), _version(entry.method.name), plain(entry.metric), entry.seed, sampling]
    mark = digest("system to fit", said, type(parts.metric).__name__, [_said(e) for e in dev], _members(parts.pool))
    return Member(entry.name or entry.method.label, parts, mark)


def _said(example: Example) -> str:
    return digest(plain(example))


def _members(pool: Sequence[Model]) -> list[list[Any]]:
    """What a system's reply depends on of its models: also how they are called and described, which prompts may tell."""
    return [[m.fingerprint, m.copy, m.name, m.description] for m in pool]


def _version(method: str) -> str:
    plugins = installed().plugins("method")
    return plugins[method].version if method in plugins else ""


def _files(folder: Path) -> str:
    """Return a digest of the files that a system saved."""
    hasher = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                content.update(block)
        hasher.update(canonical([file.relative_to(folder).as_posix(), content.hexdigest()]).encode())
    return hasher.hexdigest()


def _label(folder: Path, method: dict[str, Any]) -> str:
    try:
        return str(json.loads((folder / "run.json").read_text(encoding="utf-8"))["label"])
    except (OSError, ValueError, KeyError):
        return str(method.get("label", method["name"]))


def _at_once(work: Awaitable[T]) -> T:
    """Return the result of a coroutine that waits for nothing: a saved system is restored from its folder alone."""
    try:
        next(work.__await__())
    except StopIteration as done:
        result: T = done.value
        return result
    raise ConfigError("the saved system asks its models to be restored; it cannot be a member")
