"""Options of plugins: frozen attrs classes, converted strictly, with every problem reported at once.

A plugin declares::

    @attrs.frozen(kw_only=True)
    class Options:
        rounds: int = option(2, ge=0, help="refinement rounds after the first answer", paper="1 on GSM8K")
        stop: Literal["never", "consensus"] = option("never", help="early exit")

The command line, the configuration check and the documentation are all derived from this class.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

import attrs

from moco_core.errors import ConfigError, suggest
from moco_core.secrets import MASK, Secret

__all__ = ["NoOptions", "OptionInfo", "as_given", "build", "describe", "option", "plain"]

T = TypeVar("T")
_META = "moco"


@attrs.frozen(kw_only=True)
class NoOptions:
    """The options of a plugin that has none."""


@attrs.frozen
class _Limits:
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def text(self) -> str:
        pairs = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in pairs if bound is not None)

    def hold(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )


@attrs.frozen(kw_only=True)
class _Meta:
    help: str = ""
    paper: str = ""
    limits: _Limits = _Limits()
    check: Callable[[Any], str | None] | None = None


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
) -> Any:
    """Declare one option.

    ``ge``, ``gt``, ``le`` and ``lt`` bound a number, or every number of a list. ``check`` returns what is wrong with a
    value (one clause, such as "expected distinct names"), or None. ``paper`` is the value the paper uses.
    """
    meta = _Meta(help=help, paper=paper, limits=_Limits(ge, gt, le, lt), check=check)

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        problem = _value_problem(attribute, value)
        if isinstance(value, str) and "Secret" in str(attribute.type):
            problem = "expected a Secret, so that it is shown nowhere; got a plain str"
        if problem:
            raise ConfigError(f"{attribute.name}: {problem}")

    keywords: dict[str, Any] = {"metadata": {_META: meta}, "validator": validate}
    if factory is not None:
        return attrs.field(factory=factory, **keywords)
    if default is not attrs.NOTHING:
        keywords["default"] = default
    return attrs.field(**keywords)


@attrs.frozen(kw_only=True)
class OptionInfo:
    """One option as it is shown to people."""

    name: str
    type: str
    default: Any
    required: bool
    range: str
    help: str
    paper: str


def describe(cls: type) -> list[OptionInfo]:
    """Return the options of a plugin's class, in declaration order."""
    hints = typing.get_type_hints(cls)
    out = []
    for field in attrs.fields(cls):
        meta = _meta(field)
        required = field.default is attrs.NOTHING
        default = None if required else _default(field)
        out.append(
            OptionInfo(
                name=field.name,
                type=_type_text(hints[field.name]),
                default=default,
                required=required,
                range=meta.limits.text(),
                help=meta.help,
                paper=meta.paper,
            )
        )
    return out


def plain(value: Any) -> Any:
    """Return options (or any value made of attrs classes, sequences and mappings) as JSON data. Secrets are masked."""
    if isinstance(value, Secret):
        return str(value)
    if attrs.has(type(value)):
        return {f.name: plain(getattr(value, f.name)) for f in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def as_given(options: Any, data: Any) -> Any:
    """Return the data that ``options`` were built from as it was given, but for its secrets, which are masked."""
    if isinstance(options, Secret):
        return MASK if options else data
    if isinstance(data, Mapping) and attrs.has(type(options)):
        return {k: as_given(getattr(options, k, None), v) for k, v in data.items()}
    if isinstance(data, Mapping) and isinstance(options, Mapping):
        return {k: as_given(options.get(str(k)), v) for k, v in data.items()}
    if isinstance(data, (list, tuple)) and isinstance(options, (list, tuple)):
        return [as_given(o, v) for o, v in zip(options, data, strict=True)]
    return data


def build(cls: type[T], data: Mapping[str, Any] | None, path: str = "", lines: Mapping[str, int] | None = None) -> T:
    """Make ``cls`` out of plain data, strictly.

    Types must match exactly (an int is accepted where a float is expected, nothing else is converted). Unknown keys are
    refused with the nearest valid one. ``path`` opens every message; ``lines`` maps dotted paths to lines of the file the
    data came from. Raises ConfigError with all problems at once.
    """
    problems: list[str] = []
    value = _structure(cls, {} if data is None else data, path, problems)
    if problems:
        raise ConfigError([_with_line(p, lines or {}) for p in problems])
    return typing.cast(T, value)


def _with_line(problem: str, lines: Mapping[str, int]) -> str:
    where = problem.split(":", 1)[0].strip()
    line = lines.get(where)
    while line is None and "." in where:  # a missing key has no line of its own: show its parent's
        where = where.rpartition(".")[0]
        line = lines.get(where)
    return f"line {line}: {problem}" if line is not None else problem


def _meta(field: attrs.Attribute[Any]) -> _Meta:
    found = field.metadata.get(_META)
    return found if isinstance(found, _Meta) else _Meta()


def _default(field: attrs.Attribute[Any]) -> Any:
    default = field.default
    # attrs.Factory is a function to its type checker and a class at run time
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type, union-attr]


def _value_problem(field: attrs.Attribute[Any], value: Any) -> str | None:
    meta = _meta(field)
    if meta.limits != _Limits():
        numbers = (
            value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else [value]
        )
        for number in numbers:
            if isinstance(number, (int, float)) and not isinstance(number, bool) and not meta.limits.hold(number):
                return f"expected {_number_text(field, number)} {meta.limits.text()}, got {number}"
    if meta.check is not None and value is not None:
        return meta.check(value)
    return None


def _number_text(field: attrs.Attribute[Any], value: float) -> str:
    return "int" if isinstance(value, int) and "float" not in str(field.type) else "number"


def _structure(cls: Any, data: Any, path: str, problems: list[str]) -> Any:
    """Return ``data`` as ``cls``; append every problem found. The result is meaningless if there was any."""
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    if cls is Any or cls is object:
        return data
    if origin in (Union, types.UnionType):
        return _structure_union(args, data, path, problems)
    if cls is Secret:
        return _structure_secret(data, path, problems)
    if origin is Literal:
        if data in args and type(data) in {type(a) for a in args}:
            return data
        if isinstance(data, bool) and (word := "yes" if data else "no") in args:
            return word  # YAML reads these words as booleans
        near = suggest(data, [str(a) for a in args]) if isinstance(data, str) else ""
        problems.append(f"{path}: expected one of {', '.join(map(str, args))}, got {data!r}{near}")
        return None
    if attrs.has(cls):
        return _structure_class(cls, data, path, problems)
    if origin in (tuple, list, Sequence) or cls in (tuple, list):
        return _structure_sequence(origin or cls, args, data, path, problems)
    if origin in (dict, Mapping) or cls is dict:
        if not isinstance(data, Mapping):
            problems.append(f"{path}: expected a mapping, got {_got(data)}")
            return None
        value_type = args[1] if args else Any
        return {str(k): _structure(value_type, v, f"{path}.{k}", problems) for k, v in data.items()}
    if cls is type(None):
        if data is not None:
            problems.append(f"{path}: expected nothing, got {_got(data)}")
        return None
    if cls is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(cls, type) and type(data) is not cls:
        problems.append(f"{path}: expected {cls.__name__}, got {_got(data)}")
    return data


def _structure_secret(data: Any, path: str, problems: list[str]) -> Secret | None:
    if isinstance(data, Secret):
        return data
    if isinstance(data, str):
        return Secret(data)
    problems.append(f"{path}: expected a secret text, got {type(data).__name__}; put it in quotes")
    return None


def _structure_union(args: Sequence[Any], data: Any, path: str, problems: list[str]) -> Any:
    attempts: list[list[str]] = []
    for member in args:
        attempt: list[str] = []
        value = _structure(member, data, path, attempt)
        if not attempt:
            return value
        attempts.append(attempt)
    if Secret in args:  # what was meant to be one is not shown either
        problems.extend(attempts[list(args).index(Secret)])
        return None
    # a problem deeper than the value itself belongs to the member the author meant
    inner = [a for a in attempts if any(not p.startswith(f"{path}: expected") for p in a)]
    if len(inner) == 1:
        problems.extend(inner[0])
    else:
        expected = " or ".join(_type_text(a) for a in args)
        problems.append(f"{path}: expected {expected}, got {_got(data)}")
    return None


def _structure_sequence(origin: Any, args: Sequence[Any], data: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(data, (list, tuple)):
        problems.append(f"{path}: expected a list, got {_got(data)}")
        return None
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(data) != len(args):
            problems.append(f"{path}: expected {len(args)} values, got {len(data)}")
            return None
        return tuple(
            _structure(a, v, f"{path}[{i}]", problems) for i, (a, v) in enumerate(zip(args, data, strict=True))
        )
    member = args[0] if args else Any
    values = [_structure(member, v, f"{path}[{i}]", problems) for i, v in enumerate(data)]
    return tuple(values) if origin is not list else values


def _structure_class(cls: type, data: Any, path: str, problems: list[str]) -> Any:
    if isinstance(data, cls):
        return data
    if not isinstance(data, Mapping):
        problems.append(f"{path or cls.__name__}: expected a mapping, got {_got(data)}")
        return None
    prefix = f"{path}." if path else ""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in attrs.fields(cls)}
    before = len(problems)
    for key in data:
        if key not in fields:
            known = f"; known keys: {', '.join(fields)}" if fields else "; it takes no options"
            problems.append(f"{prefix}{key}: unknown key{suggest(str(key), fields) or known}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in data:
            if field.default is attrs.NOTHING:
                problems.append(f"{prefix}{name}: missing, expected {_type_text(hints[name])}")
            continue
        count = len(problems)
        value = _structure(hints[name], data[name], f"{prefix}{name}", problems)
        if len(problems) == count:
            problem = _value_problem(field, value)
            if problem:
                problems.append(f"{prefix}{name}: {problem}")
        values[name] = value
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:  # rules over several fields, raised in __attrs_post_init__
        problems.extend(f"{prefix}{p}" for p in error.problems)
    except (TypeError, ValueError) as error:
        problems.append(f"{path or cls.__name__}: {error.args[0] if error.args else error}")
    return None


def _got(data: Any) -> str:
    kind = "nothing" if data is None else type(data).__name__
    if data is None:
        return kind
    text = repr(data)
    return f"{kind} {text if len(text) <= 60 else text[:57] + '...'}"


def _type_text(cls: Any) -> str:
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_text(a) for a in args)
    if cls is Secret:
        return "secret"
    if origin is Literal:
        return "|".join(map(str, args))
    if cls is type(None):
        return "none"
    if origin in (tuple, list, Sequence):
        return f"list of {_type_text(args[0])}" if args else "list"
    if origin in (dict, Mapping):
        return "mapping"
    if attrs.has(cls) if isinstance(cls, type) else False:
        return "mapping"
    return getattr(cls, "__name__", str(cls))
