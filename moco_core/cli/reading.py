"""Reading YAML that people wrote: numbers as YAML 1.2 has them, and one line for whatever could be meant two ways.

Refused are keys that stand twice, tags, aliases that hold themselves, nesting that no configuration has, and aliases
that would grow into millions of values. Keys are texts. Nothing in a file is ever executed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from moco_core.errors import ConfigError
from moco_core.fields import Lines

_DEPTH = 100
_VALUES = 100_000
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Any] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
for _value, _names in ((True, "true yes on"), (False, "false no off")):  # yes and no are of YAML 1.1: people write them
    for _name in _names.split():
        _WORDS |= dict.fromkeys((_name, _name.title(), _name.upper()), _value)


class _Loader(yaml.SafeLoader):
    """A loader that leaves scalars as they stand: they are read here."""


_Loader.yaml_implicit_resolvers = {}


def load_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a YAML mapping; return its data and the line of every dotted path. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    lines = Lines()
    lines.folder = path.parent
    try:
        data = _parse(text, lines)
    except _Refused as error:
        raise ConfigError(f"{path}: line {error.line}: {error.problem}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}:{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(data).__name__}")
    return data, lines


def read_value(text: str) -> Any:
    """Read a value of the command line; what is no YAML is a text. Raises ConfigError for what is YAML and refused."""
    try:
        return _parse(text, Lines())
    except _Refused as error:
        raise ConfigError(error.problem) from None
    except yaml.YAMLError:
        return text


class _Refused(Exception):
    def __init__(self, mark: Any, problem: str) -> None:
        super().__init__(problem)
        self.line = mark.line + 1
        self.problem = problem


def _parse(text: str, lines: Lines) -> Any:
    _measure(text)
    node = yaml.compose(text, Loader=_Loader)
    return None if node is None else _data(node, "", lines)


def _measure(text: str) -> None:
    """Refuse what could not be read in reasonable time and space, before it is."""
    unclosed: list[tuple[str | None, int]] = []  # anchor of each collection that is open, and the values before it
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark = event.start_mark
        if (tag := getattr(event, "tag", None)) is not None:
            raise _Refused(mark, f"the tag {tag} is not used here; put texts in quotes")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [a for a, _ in unclosed]:
                raise _Refused(mark, f"the alias *{event.anchor} holds itself")
            count += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            unclosed.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = unclosed.pop()
            if anchor:
                sizes[anchor] = count - before
        if len(unclosed) > _DEPTH:
            raise _Refused(mark, f"nested more than {_DEPTH} deep")
        if count > _VALUES:
            raise _Refused(mark, f"more than {_VALUES:,} values, aliases counted as what they stand for")


def _data(node: yaml.Node, path: str, lines: Lines) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[f"{path}[{index}]"] = item.start_mark.line + 1
        return [_data(item, f"{path}[{i}]", lines) for i, item in enumerate(node.value)]
    out: dict[str, Any] = {}
    first: dict[str, int] = {}
    merged: list[yaml.Node] = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused(key.start_mark, "a key is a single text")
        name, line = key.value, key.start_mark.line + 1
        if name == "<<" and key.style is None:
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            continue
        if name in first:
            raise _Refused(key.start_mark, f"the key {name!r} stands there twice, first in line {first[name]}")
        first[name] = line
        child = f"{path}.{name}" if path else name
        lines[child] = line
        out[name] = _data(value, child, lines)
    for source in merged:
        if not isinstance(source, yaml.MappingNode):
            raise _Refused(source.start_mark, "<< takes a mapping, or a list of them")
        inner = Lines()
        more = _data(source, path, inner)
        out |= {k: v for k, v in more.items() if k not in out}
        for place, line in inner.items():
            lines.setdefault(place, line)
    return out


def _scalar(node: yaml.ScalarNode) -> Any:
    text = node.value
    if node.style is not None:  # quoted, or a block of lines
        return text
    if text in _WORDS:
        return _WORDS[text]
    try:
        if _INT.fullmatch(text):
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if _FLOAT.fullmatch(text):
            return float(re.sub(r"\.(?=[a-z])", "", text.lower()))
    except ValueError:
        raise _Refused(node.start_mark, f"a number of {len(text):,} digits") from None
    return text
