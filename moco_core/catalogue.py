"""Finding plugins: a catalogue made from entry-point metadata alone; a plugin is imported when it is used.

``MOCO_PLUGINS`` (a comma-separated list of distributions, or empty) restricts what is seen, for reproducible runs and for
finding a broken plugin. ``MOCO_TRACE`` prints every hook call with its arguments and result on stderr.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from moco_core.discovery import EntryPoint, PluginInfo, distribution_name, installed_points, normal, read_plugin_info
from moco_core.errors import (
    BrokenPlugin,
    IncompatiblePlugin,
    PluginConflict,
    PluginError,
    UnknownPlugin,
    error_line,
    suggest,
)
from moco_core.kinds import GROUPS, KINDS

if TYPE_CHECKING:  # and what only few commands need is imported there
    from pathlib import Path

    import pluggy


@functools.cache
def _bases() -> Mapping[str, type]:
    # imported here: listing plugins needs none of this
    from moco_core.data import Dataset, Metric
    from moco_core.events import Observer
    from moco_core.executors import Executor
    from moco_core.methods import Method
    from moco_core.models import PoolSource

    return {
        "pool": PoolSource,
        "method": Method,
        "dataset": Dataset,
        "metric": Metric,
        "observer": Observer,
        "executor": Executor,
    }


@functools.cache
def installed() -> Catalogue:
    """Return the catalogue of this process: the plugins of its environment, and what ``moco.register`` added."""
    return Catalogue(os.environ)


class Catalogue:
    """The plugins of this environment and those registered by hand."""

    def __init__(self, environ: Mapping[str, str], entry_points: Iterable[EntryPoint] | None = None) -> None:
        allowed = environ.get("MOCO_PLUGINS")
        self._allowed = None if allowed is None else {normal(n) for n in allowed.split(",") if n.strip()}
        self._trace = bool(environ.get("MOCO_TRACE"))
        self._points = None if entry_points is None else list(entry_points)
        self._registered: dict[tuple[str, str], type] = {}
        self._plugins: dict[str, dict[str, PluginInfo]] = {}
        self._loaded: dict[tuple[str, str], type] = {}

    # ---------------------------------------------------------------- listing

    def plugins(self, kind: str) -> dict[str, PluginInfo]:
        """Return the plugins of a kind by name, sorted; nothing is imported.

        Raises PluginConflict if two distributions claim one name.
        """
        if kind not in self._plugins:
            self._plugins[kind] = self._scan(kind)
        plugins = dict(self._plugins[kind])
        for (its_kind, name), cls in self._registered.items():
            if its_kind == kind:
                summary = (cls.__doc__ or "").strip().partition("\n")[0]
                plugins[name] = PluginInfo(kind=kind, name=name, module=cls.__module__, summary=summary)
        return dict(sorted(plugins.items()))

    def _entry_points(self, group: str) -> list[EntryPoint]:
        if self._points is None:
            self._points = installed_points()
        return [p for p in self._points if p.group == group]

    def _scan(self, kind: str) -> dict[str, PluginInfo]:
        plugins: dict[str, PluginInfo] = {}
        found = [read_plugin_info(kind, point) for point in self._entry_points(GROUPS[kind])]
        for info in sorted(found, key=lambda i: (i.name, i.distribution)):
            if self._allowed is not None and normal(info.distribution) not in self._allowed:
                continue
            first = plugins.get(info.name)
            if first is None:
                plugins[info.name] = info
            elif (first.distribution, first.module) != (info.distribution, info.module):
                raise PluginConflict(
                    f"{kind} {info.name!r} comes from both {first.distribution} {first.version} and "
                    f"{info.distribution} {info.version}; uninstall one of them"
                )
        return plugins

    # ---------------------------------------------------------------- loading

    def load(self, kind: str, name: str) -> type[Any]:
        """Import one plugin and return its class.

        Raises UnknownPlugin, PluginConflict, BrokenPlugin or IncompatiblePlugin.
        """
        registered = self._registered.get((kind, name))
        if registered is not None:
            return registered
        if (kind, name) not in self._loaded:
            info = self.plugin_info(kind, name)
            self._loaded[kind, name] = self._class_of(kind, _imported(info), _who(info))
        return self._loaded[kind, name]

    def plugin_info(self, kind: str, name: str) -> PluginInfo:
        """Return what is known of one plugin. Raises UnknownPlugin with the command that would install it."""
        plugins = self.plugins(kind)
        if name in plugins:
            return plugins[name]
        hint = suggest(name, plugins)
        others = [k for k in KINDS if k != kind and name in self.plugins(k)]
        if others:
            hint += f" ({name!r} is a {others[0]})"
        if self._allowed is not None:
            hint += " (MOCO_PLUGINS restricts what is seen)"
        mine = sorted(f"{n!r}" for k, n in self._registered if k == kind)
        if not hint and mine:
            hint += f" (registered by hand: {', '.join(mine)})"
        raise UnknownPlugin(f"no {kind} {name!r} is installed{hint}{_advice(kind, name, plugins)}")

    def able(self, kind: str, keyword: str) -> list[str]:
        """Return the names of the plugins of a kind that carry a keyword such as ``can-step``; nothing is imported."""
        return [name for name, info in self.plugins(kind).items() if keyword in info.keywords]

    def entry(self, info: PluginInfo) -> Any:
        """Import and return what an entry point names (a command). Raises BrokenPlugin or IncompatiblePlugin."""
        module = _imported(info)
        try:
            return getattr(module, info.attribute)
        except AttributeError as error:
            raise BrokenPlugin(f"{_who(info)}: {error_line(error)}") from None

    def manager(self) -> pluggy.PluginManager:
        """Return a manager of the hook specification; with ``MOCO_TRACE`` it prints every call."""
        import pluggy

        from moco_core import hookspecs

        manager = pluggy.PluginManager("moco")
        manager.add_hookspecs(hookspecs)
        if self._trace:
            manager.trace.root.setwriter(sys.stderr.write)
            manager.enable_tracing()
        return manager

    def _class_of(self, kind: str, module: ModuleType, who: str) -> type[Any]:
        manager = self.manager()
        try:
            manager.register(module, name=module.__name__)
            manager.check_pending()
            results = getattr(manager.hook, f"moco_{kind}")()
        except Exception as error:
            raise BrokenPlugin(f"{who} cannot be registered: {error_line(error)[:300]}") from error
        if len(results) != 1:
            raise BrokenPlugin(f"{who}: {module.__name__} does not implement the hook moco_{kind}")
        cls = results[0]
        base = _bases()[kind]
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise BrokenPlugin(f"{who}: moco_{kind} returned {cls!r}, which is not a subclass of {base.__name__}")
        return cls

    # ---------------------------------------------------------------- by hand

    def register(self, cls: Any, name: str | None = None) -> Any:
        """Make an unpackaged class usable under ``name`` (by default its class name in snake case); returns it.

        Raises PluginConflict if an installed plugin has that name already, PluginError for any other class.
        """
        kind = next((k for k, base in _bases().items() if isinstance(cls, type) and issubclass(cls, base)), None)
        if kind is None:
            *names, last = (base.__name__ for base in _bases().values())
            raise PluginError(f"{cls!r} is neither a {', '.join(names)} nor {last} subclass")
        name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        taken = self._scan(kind).get(name) if kind not in self._plugins else self._plugins[kind].get(name)
        if taken is not None:
            raise PluginConflict(f"{kind} {name!r} is already provided by {taken.distribution}; register another name")
        self._registered[kind, name] = cls
        return cls

    def register_file(self, path: Path) -> list[tuple[str, str]]:
        """Import a Python file and register the plugins its hooks return (``--plugin path.py``).

        Without hooks, every subclass of a plugin base that the file itself defines is registered. Returns what was
        registered as (kind, name). Raises BrokenPlugin.
        """
        if not path.is_file():
            raise UnknownPlugin(f"--plugin {path}: no such file")
        import importlib.util

        spec = importlib.util.spec_from_file_location(f"moco_local_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise BrokenPlugin(f"--plugin {path}: {error_line(error)[:300]}") from error
        found: list[type] = []
        for kind in KINDS:
            if hasattr(module, f"moco_{kind}"):
                found.append(self._class_of(kind, module, f"--plugin {path}"))
        if not found:
            found = [
                v
                for v in vars(module).values()
                if isinstance(v, type) and v.__module__ == module.__name__ and issubclass(v, tuple(_bases().values()))
            ]
        if not found:
            raise BrokenPlugin(f"--plugin {path}: it defines no {', '.join(KINDS[:-1])} or {KINDS[-1]}")
        for cls in found:
            self.register(cls, getattr(cls, "name", None) if isinstance(getattr(cls, "name", None), str) else None)
        return sorted(key for key, cls in self._registered.items() if cls in found)


@functools.cache
def _published() -> frozenset[str]:
    """The distributions of this project: what the core's extra ``all`` brings, which upkeep holds complete."""
    from importlib import metadata

    try:
        wanted = metadata.requires("moco-core") or ()
    except metadata.PackageNotFoundError:
        return frozenset()
    return frozenset(re.split(r"[^\w.-]", w, maxsplit=1)[0] for w in wanted if "extra" in w)


def _advice(kind: str, name: str, plugins: Mapping[str, PluginInfo]) -> str:
    """Return how to install a plugin of this project; nothing for names that nobody here vouches for."""
    if not name.replace("_", "").replace("-", "").isalnum():
        return ""  # a path
    import difflib

    wanted, prefix = distribution_name(kind, name), f"moco-{kind}-"
    if wanted in _published():
        return f"; try: pip install {wanted}"
    near = difflib.get_close_matches(wanted, [d for d in _published() if d.startswith(prefix)], n=1, cutoff=0.85)
    have = {normal(info.distribution) for info in plugins.values()}
    return f"; try: pip install {near[0]}" if near and near[0] not in have else ""


def _who(info: PluginInfo) -> str:
    return f"{info.kind} {info.name!r} ({info.distribution} {info.version})"


def _imported(info: PluginInfo) -> ModuleType:
    """Import a plugin's module. Raises BrokenPlugin or IncompatiblePlugin."""
    if info.problem:
        raise IncompatiblePlugin(f"{_who(info)} {info.problem}")
    try:
        return importlib.import_module(info.module)
    except (Exception, SystemExit) as error:
        raise BrokenPlugin(
            f"{_who(info)} is installed but importing {info.module} fails: {error_line(error)[:300]}; "
            f"reinstall it or report it to its author"
        ) from error
