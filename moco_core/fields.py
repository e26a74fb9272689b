"""What options are declared with: single fields, their limits and help, and values that are plugins themselves.

:mod:`moco_core.options` builds, describes and checks classes made of these.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import attrs

from moco_core.errors import ConfigError
from moco_core.secrets import Secret, masked

_META = "moco"
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}

Holds = Literal["value", "path", "path or id"]
"""What an option holds. A path in a file starts from the file's folder; what may be an id, only if it is there."""


@attrs.frozen(kw_only=True)
class NoOptions:
    """The options of a plugin that has none."""


class Lines(dict[str, int]):
    """The line of every dotted path of a file, 0 where something else replaces what the file says.

    ``folder`` is where relative paths that stand in the file start from.
    """

    folder: Path | None = None

    def forget(self, place: str) -> None:
        """Forget a path and all under it: the value there is no longer the file's."""
        for key in [k for k in self if k.startswith((f"{place}.", f"{place}["))]:
            del self[key]
        self[place] = 0


class Plugins(Protocol):
    """Where the plugins named in options come from: :class:`~moco_core.catalogue.Catalogue`."""

    def plugins(self, kind: str) -> Mapping[str, Any]: ...

    def load(self, kind: str, name: str) -> type[Any]: ...


@attrs.frozen(kw_only=True)
class Slot:
    """Where a plugin may stand in options; the fields are the arguments of :func:`plugin_option`."""

    kind: str
    default: str | Mapping[str, Any] | Callable[[Collection[str]], Any] | None = None
    sets: frozenset[str] = frozenset()
    further: type = NoOptions


@attrs.frozen(kw_only=True)
class FieldInfo:
    """What a field says beyond its type and default. ``bounds`` are those of a number, by their signs."""

    help: str = ""
    paper: str = ""
    bounds: Mapping[str, float] = attrs.field(factory=dict)
    check: Callable[[Any], str | None] | None = None
    slot: Slot | None = None
    holds: Holds = "value"

    @property
    def range(self) -> str:
        """The bounds as people read them; empty without any."""
        return " and ".join(f"{sign} {bound:g}" for sign, bound in self.bounds.items())

    def problem(self, field: attrs.Attribute[Any], value: Any) -> str | None:
        """Return what is wrong with a value of the right type, or None."""
        numbers = (
            value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else [value]
        )
        for number in numbers:
            if not isinstance(number, (int, float)) or isinstance(number, bool):
                continue
            if isinstance(number, float) and not math.isfinite(number):
                return f"expected a finite number, got {number}"
            if not all(_SIGNS[sign](number, bound) for sign, bound in self.bounds.items()):
                word = "int" if isinstance(number, int) and "float" not in str(field.type) else "number"
                return f"expected {word} {self.range}, got {number}"
        if self.check is not None and value is not None:
            return self.check(value)
        return None


def info_of(field: attrs.Attribute[Any]) -> FieldInfo:
    """Return what was declared with :func:`option` or :func:`plugin_option`; nothing for any other attrs field."""
    found = field.metadata.get(_META)
    return found if isinstance(found, FieldInfo) else FieldInfo()


def option(
    default: Any = attrs.NOTHING,
    *,
    factory: Callable[[], Any] | None = None,
    help: str = "",
    paper: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    check: Callable[[Any], str | None] | None = None,
    holds: Holds = "value",
) -> Any:
    """Declare one option.

    ``ge``, ``gt``, ``le`` and ``lt`` bound a number, or every number of a list. ``check`` returns what is wrong with a
    value (one clause, such as "expected distinct names"), or None. ``paper`` is the value the paper uses. ``holds`` tells
    files and folders from other texts: a relative path that stands in a configuration file starts from that file's folder.
    """
    bounds = {sign: bound for sign, bound in zip(_SIGNS, (ge, gt, le, lt), strict=True) if bound is not None}
    info = FieldInfo(help=help, paper=paper, bounds=bounds, check=check, holds=holds)
    return _field(info, default, factory)


def plugin_option(
    kind: str,
    default: Any = attrs.NOTHING,
    *,
    sets: Collection[str] = (),
    further: type = NoOptions,
    help: str = "",
    check: Callable[[Any], str | None] | None = None,
) -> Any:
    """Declare an option that holds plugins of a kind; its type is made of :class:`Plugin`, alone or in a collection::

        judge: Plugin | None = plugin_option("pool", None, help="the judge's pool")
        pools: tuple[Plugin, ...] = plugin_option("pool", help="the pools that are mixed")

    In a configuration it is written like any other section of its kind: a name, or a mapping of ``name`` and options.
    A ``default`` that is a section, or a function from the names of the installed plugins to one, is built where the key
    is missing. ``sets`` are options of the plugin that its holder sets by :func:`~moco_core.options.with_options`; until
    then ``Plugin.options`` is a mapping without them. ``further`` is an options class whose keys stand beside the
    plugin's own and arrive as ``Plugin.further``.
    """
    section = default if default and (isinstance(default, (str, Mapping)) or callable(default)) else None
    slot = Slot(kind=kind, default=section, sets=frozenset(sets), further=further)
    return _field(FieldInfo(help=help, check=check, slot=slot), None if section is not None else default, None)


def _field(info: FieldInfo, default: Any, factory: Callable[[], Any] | None) -> Any:
    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        problem = info.problem(attribute, value)
        if isinstance(value, str) and "Secret" in str(attribute.type):
            problem = "expected a Secret, so that it is shown nowhere; got a plain str"
        if problem:
            raise ConfigError(f"{attribute.name}: {problem}")

    made = default if factory is None else attrs.Factory(factory)
    return attrs.field(default=made, metadata={_META: info}, validator=validate)


@attrs.frozen(kw_only=True, slots=False)
class Plugin:
    """A plugin with its options. ``given`` is what the user wrote, secrets masked, ``options`` the effective values.

    ``further`` are the keys of its section that are not the plugin's own but its holder's. ``label`` is its name in tables.
    Two are equal if they name one class with equal effective options.
    """

    kind: str
    name: str
    given: Mapping[str, Any] = attrs.field(eq=False, repr=False)
    options: Any
    cls: type[Any]
    further: Any = NoOptions()
    label: str = attrs.field(eq=False)

    @label.default
    def _name(self) -> str:
        return self.name

    def make(self) -> Any:
        """Return a new instance."""
        return self.cls(self.options)

    @cached_property
    def instance(self) -> Any:
        """The one instance that all who hold this value share."""
        return self.make()

    def plain(self) -> dict[str, Any]:
        """Return name and effective options as JSON data, in the form of a configuration's section; a pool's keys masked.

        The options of other plugins hold no secrets but those declared as :class:`~moco_core.secrets.Secret`.
        """
        body = {"name": self.name, **plain(self.options), **plain(self.further)}
        return masked(body) if self.kind == "pool" else body


def plain(value: Any, key: Callable[[Any], str] = str) -> Any:
    """Return options (or any value made of attrs classes, plugins, sequences and mappings) as JSON data.

    Secrets are masked; ``key`` makes a text of a mapping's key.
    """
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, Plugin):
        return value.plain()
    if attrs.has(type(value)):
        return {f.name: plain(getattr(value, f.name), key) for f in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {key(k): plain(v, key) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, key) for v in value]
    return value
