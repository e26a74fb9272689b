"""Options of plugins: frozen attrs classes, converted strictly, with every problem reported at once.

A plugin declares::

    @attrs.frozen(kw_only=True)
    class Options:
        rounds: int = option(2, ge=0, help="refinement rounds after the first answer", paper="1 on GSM8K")
        stop: Literal["never", "consensus"] = option("never", help="early exit")
        judge: Plugin | None = plugin_option("pool", None, help="the judge's pool")

The command line, the configuration check and the documentation are all derived from this class.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import attrs

from moco_core.building import Scope, as_given, structure, structure_plugin
from moco_core.fields import NoOptions, Plugin, Plugins, Slot, option, plain, plugin_option

__all__ = [
    "NoOptions",
    "Plugin",
    "as_given",
    "build",
    "build_plugin",
    "option",
    "plain",
    "plugin_option",
    "plugins_in",
    "with_options",
]

T = TypeVar("T")


def build(
    cls: type[T],
    data: Mapping[str, Any] | None,
    path: str = "",
    lines: Mapping[str, int] | None = None,
    *,
    plugins: Plugins | None = None,
) -> T:
    """Make ``cls`` out of plain data, strictly.

    Types must match exactly (an int is accepted where a float is expected, nothing else is converted). Unknown keys are
    refused with the nearest valid one. ``path`` opens every message; ``lines`` maps dotted paths to lines of the file the
    data came from; ``plugins`` is the catalogue that plugins named in the data come from. Raises ConfigError with all
    problems at once.
    """
    scope = Scope(catalogue=plugins, lines=lines or {})
    value = structure(cls, {} if data is None else data, path, scope)
    scope.finish()
    return typing.cast(T, value)


def build_plugin(
    plugins: Plugins, kind: str, section: Any, path: str, lines: Mapping[str, int] | None = None
) -> Plugin:
    """Load the plugin that a section names and build its options. Raises ConfigError with all problems at once."""
    scope = Scope(catalogue=plugins, lines=lines or {})
    value = structure_plugin(Slot(kind=kind), section, path, scope)
    scope.finish()
    return typing.cast(Plugin, value)


def plugins_in(value: Any, kind: str) -> Iterator[Plugin]:
    """Yield the plugins of a kind that options hold, alone or in collections; not those that these hold in turn."""
    if isinstance(value, Plugin):
        if value.kind == kind:
            yield value
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from plugins_in(getattr(value, field.name), kind)
    elif isinstance(value, (list, tuple, Mapping)):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from plugins_in(member, kind)


def with_options(plugin: Plugin, more: Mapping[str, Any], path: str = "") -> Plugin:
    """Return a plugin with the options that its holder sets. Raises ConfigError, ``path`` in front."""
    known = plugin.options
    have = known if isinstance(known, Mapping) else {f.name: getattr(known, f.name) for f in attrs.fields(type(known))}
    options = build(plugin.cls.Options, {**have, **more}, path)
    return attrs.evolve(plugin, options=options, given={**plugin.given, **more})
