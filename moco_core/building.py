"""Building options out of plain data: every type strictly, every problem with its path and line."""

from __future__ import annotations

import math
import sys
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Union

import attrs

from moco_core.errors import ConfigError, PluginError, suggest
from moco_core.fields import Lines, Plugin, Plugins, Slot, info_of
from moco_core.secrets import MASK, Secret, masked


def as_given(options: Any, data: Any) -> Any:
    """Return the data that ``options`` were built from, as it was given but with its secrets masked."""
    if isinstance(options, Secret):
        return MASK if options else data
    if isinstance(options, Plugin) and isinstance(data, Mapping):
        return {"name": options.name, **options.given}
    if isinstance(data, Mapping) and attrs.has(type(options)):
        return {k: as_given(getattr(options, k, None), v) for k, v in data.items()}
    if isinstance(data, Mapping) and isinstance(options, Mapping):
        return {k: as_given(options.get(str(k)), v) for k, v in data.items()}
    if isinstance(data, (list, tuple)) and isinstance(options, (list, tuple)):
        return [as_given(o, v) for o, v in zip(options, data, strict=True)]
    return data


@attrs.frozen(kw_only=True)
class Scope:
    """What structuring needs besides the value: where plugins come from, which kind may stand here, the problems so far."""

    catalogue: Plugins | None
    lines: Mapping[str, int]
    slot: Slot | None = None
    problems: list[str] = attrs.field(factory=list)

    def say(self, problem: str) -> None:
        self.problems.append(problem)

    def attempt(self) -> Scope:
        """Return a scope whose problems do not count yet."""
        return attrs.evolve(self, problems=[])

    def of(self, field: attrs.Attribute[Any]) -> Scope:
        """Return the scope of a field's value."""
        return attrs.evolve(self, slot=info_of(field).slot)

    def placed(self, value: Any, path: str, *, must: bool) -> Any:
        """Resolve paths against the folder of the file they are written in; without ``must`` only those that exist there."""
        folder = self.lines.folder if isinstance(self.lines, Lines) else None
        if folder is None:
            return value
        if isinstance(value, (list, tuple)):
            return type(value)(self.placed(v, f"{path}[{i}]", must=must) for i, v in enumerate(value))
        if not isinstance(value, str) or not value or "://" in value or not self.lines.get(path):
            return value
        found = folder / value
        return str(found) if must or found.exists() else value

    def finish(self) -> None:
        if self.problems:
            raise ConfigError([_with_line(p, self.lines) for p in self.problems])


def _with_line(problem: str, lines: Mapping[str, int]) -> str:
    where = problem.split(":", 1)[0].strip()
    line = lines.get(where)
    while line is None and ("." in where or "[" in where):  # a missing key has no line of its own: show its parent's
        where = where[: max(where.rfind("."), where.rfind("["))]
        line = lines.get(where)
    return f"line {line}: {problem}" if line else problem


def default_of(field: attrs.Attribute[Any], slot: Slot | None) -> Any:
    if slot is not None and slot.default is not None:
        return "auto" if callable(slot.default) else slot.default
    default = field.default
    # attrs.Factory is a function to its type checker and a class at run time
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type, union-attr]


def structure(cls: Any, data: Any, path: str, scope: Scope) -> Any:
    """Return ``data`` as ``cls`` and report every problem to the scope; the result is meaningless if there was one."""
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    if cls is Any or cls is object:
        return data
    if cls is Plugin:
        if scope.slot is None:
            raise TypeError(f"{path}: an option that holds a plugin is declared with plugin_option")
        return structure_plugin(scope.slot, data, path, scope)
    if origin in (Union, types.UnionType):
        return _structure_union(args, data, path, scope)
    if cls is Secret:
        return _structure_secret(data, path, scope)
    if origin is Literal:
        if data in args and type(data) in {type(a) for a in args}:
            return data
        words = ("yes", "on") if data is True else ("no", "off") if data is False else ()
        if word := next((w for w in words if w in args), None):
            return word  # YAML reads these words as booleans
        near = suggest(data, [str(a) for a in args]) if isinstance(data, str) else ""
        scope.say(f"{path}: expected one of {', '.join(map(str, args))}, got {data!r}{near}")
        return None
    if attrs.has(cls):
        return _structure_class(cls, data, path, scope)
    if origin in (tuple, list, Sequence) or cls in (tuple, list):
        return _structure_sequence(origin or cls, args, data, path, scope)
    if origin in (dict, Mapping) or cls is dict:
        if not isinstance(data, Mapping):
            scope.say(f"{path}: expected a mapping, got {_got(data)}")
            return None
        value_type = args[1] if args else Any
        return {str(k): structure(value_type, v, f"{path}.{k}", scope) for k, v in data.items()}
    if cls is type(None):
        if data is not None:
            scope.say(f"{path}: expected nothing, got {_got(data)}")
        return None
    if cls is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data) if abs(data) <= sys.float_info.max else math.inf
    if isinstance(cls, type) and type(data) is not cls:
        scope.say(f"{path}: expected {cls.__name__}, got {_got(data)}")
    return data


def _structure_secret(data: Any, path: str, scope: Scope) -> Secret | None:
    if isinstance(data, Secret):
        return data
    if isinstance(data, str):
        return Secret(data)
    scope.say(f"{path}: expected a secret text, got {type(data).__name__}; put it in quotes")
    return None


def _structure_union(args: Sequence[Any], data: Any, path: str, scope: Scope) -> Any:
    attempts: list[list[str]] = []
    for member in args:
        attempt = scope.attempt()
        value = structure(member, data, path, attempt)
        if not attempt.problems:
            return value
        attempts.append(attempt.problems)
    if Secret in args:  # what was meant to be one is not shown either
        scope.problems.extend(attempts[list(args).index(Secret)])
        return None
    if Plugin in args and isinstance(data, (str, Mapping)):
        scope.problems.extend(attempts[list(args).index(Plugin)])
        return None
    # a problem deeper than the value itself belongs to the member the author meant
    inner = [a for a in attempts if any(not p.startswith(f"{path}: expected") for p in a)]
    if len(inner) == 1:
        scope.problems.extend(inner[0])
    else:
        expected = " or ".join(type_text(a, scope.slot) for a in args)
        scope.say(f"{path}: expected {expected}, got {_got(data)}")
    return None


def _structure_sequence(origin: Any, args: Sequence[Any], data: Any, path: str, scope: Scope) -> Any:
    if not isinstance(data, (list, tuple)):
        scope.say(f"{path}: expected a list, got {_got(data)}")
        return None
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(data) != len(args):
            scope.say(f"{path}: expected {len(args)} values, got {len(data)}")
            return None
        return tuple(structure(a, v, f"{path}[{i}]", scope) for i, (a, v) in enumerate(zip(args, data, strict=True)))
    member = args[0] if args else Any
    values = [structure(member, v, f"{path}[{i}]", scope) for i, v in enumerate(data)]
    return tuple(values) if origin is not list else values


def structure_plugin(slot: Slot, data: Any, path: str, scope: Scope) -> Plugin | None:
    if isinstance(data, Plugin) and data.kind == slot.kind:
        return data
    section = {"name": data} if isinstance(data, str) else data
    if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
        scope.say(f"{path}: expected the name of a {slot.kind}, or a mapping with the key name")
        return None
    if scope.catalogue is None:
        scope.say(f"{path}: plugins can be named only where they are looked up; pass plugins= to build()")
        return None
    name = section["name"]
    given = {str(k): v for k, v in section.items() if k != "name"}
    try:
        cls = scope.catalogue.load(slot.kind, name)
    except PluginError as error:
        scope.say(f"{path}: {error}")
        return None
    before = len(scope.problems)
    own = {f.name for f in attrs.fields(slot.further)}
    rest = {k: v for k, v in given.items() if k not in own}
    further = _structure_class(slot.further, {k: v for k, v in given.items() if k in own}, path, scope)
    options = _structure_class(cls.Options, rest, path, scope, sets=slot.sets, beside=own)
    if len(scope.problems) > before:
        return None
    shown = {k: as_given(further if k in own else options, {k: v})[k] for k, v in given.items()}
    shown = masked(shown) if slot.kind == "pool" else shown
    return Plugin(kind=slot.kind, name=name, given=shown, options=options, cls=cls, further=further)


def _structure_class(
    cls: type, data: Any, path: str, scope: Scope, *, sets: Collection[str] = (), beside: Collection[str] = ()
) -> Any:
    """Return an instance of ``cls``, or a mapping of its values if others set some of them (``sets``)."""
    if isinstance(data, cls):
        return data
    if not isinstance(data, Mapping):
        scope.say(f"{path or cls.__name__}: expected a mapping, got {_got(data)}")
        return None
    prefix = f"{path}." if path else ""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in attrs.fields(cls) if f.name not in sets}
    before = len(scope.problems)
    for key in data:
        if key in sets:
            scope.say(f"{prefix}{key}: is set by the options around it; leave it out")
        elif key not in fields:
            known = [*fields, *beside]
            listed = f"; known keys: {', '.join(known)}" if known else "; it takes no options"
            scope.say(f"{prefix}{key}: unknown key{suggest(str(key), known) or listed}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        inner = scope.of(field)
        given = data.get(name)
        if given is None and inner.slot is not None and inner.slot.default is not None:
            given = _default_section(inner.slot, f"{prefix}{name}", inner)
            if given is None:
                continue
        elif name not in data:
            if field.default is attrs.NOTHING:
                scope.say(f"{prefix}{name}: missing, expected {type_text(hints[name], inner.slot)}")
            elif sets:
                values[name] = default_of(field, None)
            continue
        count = len(scope.problems)
        value = structure(hints[name], given, f"{prefix}{name}", inner)
        if len(scope.problems) == count:
            info = info_of(field)
            if problem := info.problem(field, value):
                scope.say(f"{prefix}{name}: {problem}")
            if info.holds != "value":
                value = inner.placed(value, f"{prefix}{name}", must=info.holds == "path")
        values[name] = value
    if len(scope.problems) > before:
        return None
    if sets:
        return values
    try:
        return cls(**values)
    except ConfigError as error:  # rules over several fields, raised in __attrs_post_init__
        scope.problems.extend(f"{prefix}{p}" for p in error.problems)
    except (TypeError, ValueError) as error:
        scope.say(f"{path or cls.__name__}: {error.args[0] if error.args else error}")
    return None


def _default_section(slot: Slot, path: str, scope: Scope) -> Any:
    if not callable(slot.default):
        return slot.default
    if scope.catalogue is None:
        return None  # the holder's own default stays: it says what is missing when it is used
    try:
        return slot.default(tuple(scope.catalogue.plugins(slot.kind)))
    except ConfigError as error:
        scope.problems.extend(f"{path}: {p}" for p in error.problems)
        return None


def _got(data: Any) -> str:
    if data is None:
        return "nothing"
    if isinstance(data, Mapping):  # its values may be secrets
        return f"a mapping with the keys {', '.join(map(str, data))}" if data else "an empty mapping"
    text = repr(data)
    return f"{type(data).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def type_text(cls: Any, slot: Slot | None = None) -> str:
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(a, slot) for a in args)
    if cls is Secret:
        return "secret"
    if origin is Literal:
        return "|".join(map(str, args))
    if cls is type(None):
        return "none"
    if cls is Plugin:
        return slot.kind if slot is not None else "plugin"
    if origin in (tuple, list, Sequence):
        return f"list of {type_text(args[0], slot)}" if args else "list"
    if origin in (dict, Mapping):
        return f"mapping of {type_text(args[1], slot)}" if slot is not None and args else "mapping"
    if attrs.has(cls) if isinstance(cls, type) else False:
        return "mapping"
    return getattr(cls, "__name__", str(cls))
