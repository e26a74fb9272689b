"""A mergekit configuration as people write it: where it stands, and which models it names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml

from moco_core import ConfigError, Model, suggest
from moco_toolkit_checkpoints.local import LocalEngine, local_engine

__all__ = ["Configuration", "Reference", "fingerprint", "paths_of"]

_MODELS = frozenset({"model", "base_model", "tokenizer_source", "source"})
_WORDS = {"tokenizer_source": ("union", "base"), "source": ("union", "base")}

Reference = tuple[Model | Path, Model | Path | None]
"""A model of the pool or a folder, and the adapter that is put on it."""


@attrs.frozen(kw_only=True)
class Configuration:
    """The configuration as plain data. ``lines`` are those of every place of ``file``, if it stands in one."""

    data: Mapping[str, Any]
    file: Path | None = None
    lines: Mapping[str, int] = attrs.field(factory=dict)

    @classmethod
    def read(cls, given: str | Mapping[str, Any]) -> Configuration:
        """Return what the option ``config`` gives. Raises ConfigError with one line."""
        if not given:
            raise ConfigError("option config: missing; give a mergekit configuration, a YAML file or a mapping")
        if not isinstance(given, str):
            return cls(data=given)
        file = Path(given).expanduser()
        try:
            text = file.read_text("utf-8")
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"option config: {file}: cannot be read: {getattr(error, 'strerror', error)}") from None
        except yaml.YAMLError as error:
            mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
            where = f"line {mark.line + 1}" if mark is not None else "?"
            raise ConfigError(f"option config: {file}, {where}: not YAML: {problem or error}") from None
        if not isinstance(data, Mapping):
            raise ConfigError(f"option config: {file}: not a mergekit configuration; expected a mapping")
        return cls(data=data, file=file, lines=dict(_lines(root, "")))

    def at(self, place: str) -> str:
        """Return where a place stands, as messages open."""
        if self.file is None:
            return f"option config: {place}" if place else "option config"
        line = self.lines.get(place)
        return ": ".join(p for p in (f"{self.file}, line {line}" if line else str(self.file), place) if p)

    def translated(self, turn: Callable[[str, str], Any]) -> dict[str, Any]:
        """Return the data with every name of a model replaced by ``turn(name, place)``. Raises what that does."""
        out: dict[str, Any] = self._translated(self.data, "", turn)
        return out

    def _translated(self, node: Any, place: str, turn: Callable[[str, str], Any]) -> Any:
        if isinstance(node, (list, tuple)):
            return [self._translated(v, f"{place}[{i}]", turn) for i, v in enumerate(node)]
        if not isinstance(node, Mapping):
            return node
        out = {}
        for key, value in node.items():
            inner = f"{place}.{key}" if place else str(key)
            if key not in _MODELS or value is None or value in _WORDS.get(key, ()):
                out[key] = value if key == "parameters" else self._translated(value, inner, turn)
            elif isinstance(value, str):
                out[key] = turn(value, inner)
            elif isinstance(value, Mapping) and "kind" in value:  # a token's embedding, of a model's token
                out[key] = self._translated(value, inner, turn)
            else:
                raise ConfigError(f"{self.at(inner)}: expected a model of the pool or a folder, as text")
        return out

    def references(self, pool: Sequence[Model]) -> dict[str, Reference]:
        """Return what every model's name stands for. Raises ConfigError for the first that is not to be found."""
        found: dict[str, Reference] = {}

        def note(name: str, place: str) -> None:
            whole = self._located(name, pool)
            head, plus, tail = name.partition("+")
            one, two = (whole, None) if whole or not plus else (self._located(head, pool), self._located(tail, pool))
            if one is None or (whole is None and two is None):
                names = [m.name for m in pool]
                raise ConfigError(
                    f"{self.at(place)}: no model {name!r} in the pool ({', '.join(names)}) and no folder of that "
                    f"path{suggest(name, names)}"
                )
            for model in (one, two):
                if isinstance(model, Model) and _checkpoint(model) is None:
                    raise ConfigError(
                        f"{self.at(place)}: model {model.name!r} has no files of its own to merge; name one that is a "
                        "checkpoint or an adapter (`moco list pool --can weights`)"
                    )
            found[name] = one, two

        self.translated(note)
        if not found:
            raise ConfigError(f"{self.at('')}: names no model; give mergekit's 'models', 'slices' or 'modules'")
        return found

    def _located(self, name: str, pool: Sequence[Model]) -> Model | Path | None:
        for model in pool:
            if model.name == name:
                return model
        for model in pool:  # a file that people share says what the pool's entry says: an id of the Hub
            if isinstance(model.engine, LocalEngine) and not model.adapter and model.engine.files(model).named == name:
                return model
        folder = (self.file.parent if self.file else Path()) / Path(name).expanduser()
        return folder.absolute() if any((folder / f"{n}config.json").is_file() for n in ("", "adapter_")) else None

    def place_of(self, mentioned: Callable[[str], bool]) -> str:
        """Return the first place whose text is mentioned, or else whose key is; the merge method's where none is."""
        found = next((place for place, value in _leaves(self.data, "") if mentioned(value)), "")
        return found or next((key for key in map(str, self.data) if mentioned(key)), "merge_method")

    def number(self, path: str) -> float:
        """Return the number at a dotted path. Raises ConfigError if the path leads nowhere, or to something else."""
        node: Any = self.data
        keys = path.split(".")
        for i, key in enumerate(keys):
            inner = _member(node, key)
            if inner is _NONE:
                known = list(map(str, node)) if isinstance(node, Mapping) else []
                size = f"; it has {len(node)} entries, counted from 0" if isinstance(node, (list, tuple)) else ""
                place = self.existing([int(k) if k.isdecimal() else k for k in keys[:i]])
                raise ConfigError(
                    f"option search: {path}: {key!r} is not there{suggest(key, known)} ({self.at(place)}{size})"
                )
            node = inner
        if isinstance(node, bool) or not isinstance(node, (int, float)):
            place = self.existing([int(k) if k.isdecimal() else k for k in keys])
            raise ConfigError(f"option search: {path}: no number, but {node!r} ({self.at(place)})")
        return node

    def with_numbers(self, numbers: Mapping[str, float]) -> Configuration:
        """Return the configuration with other numbers at dotted paths."""
        data: Any = self.data
        for path, number in numbers.items():
            data = _with(data, path.split("."), number)
        return attrs.evolve(self, data=data)

    def existing(self, path: Sequence[Any]) -> str:
        """Return as much of a path into the data as is there, as a place."""
        node, place = self.data, ""
        for key in path:
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                break
            place = f"{place}[{key}]" if isinstance(key, int) else f"{place}.{key}".lstrip(".")
        return place


_NONE = object()


def _member(node: Any, key: str) -> Any:
    """Return what a mapping has under a key, or a list at a position; ``_NONE`` if there is no such thing."""
    if isinstance(node, Mapping):
        return node.get(key, _NONE)
    there = isinstance(node, (list, tuple)) and key.isdecimal() and int(key) < len(node)
    return node[int(key)] if there else _NONE


def _with(node: Any, keys: Sequence[str], number: float) -> Any:
    if not keys:
        return number
    head, *rest = keys
    if isinstance(node, Mapping):
        return {k: _with(v, rest, number) if k == head else v for k, v in node.items()}
    return [_with(v, rest, number) if i == int(head) else v for i, v in enumerate(node)]


def _checkpoint(model: Model) -> Path | str | None:
    """Return where a model's checkpoint lies, or the id by which it can be fetched; None if it has none."""
    if not isinstance(model.engine, LocalEngine):
        return None
    files = model.engine.files(model)
    return files.checkpoint or files.named or None


def _lines(node: Any, place: str) -> Iterator[tuple[str, int]]:
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{place}.{key.value}".lstrip(".")
            yield from _lines(value, inner)
            yield inner, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _lines(value, f"{place}[{i}]")


def _leaves(node: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{place}.{key}".lstrip("."))
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _leaves(value, f"{place}[{i}]")
    elif isinstance(node, str):
        yield place, node


def paths_of(one: Model | Path, lora: Model | Path | None) -> tuple[str, str]:
    """Return the folders of a checkpoint and of the adapter on it, an empty text for none."""
    folder = str(local_engine(one).folder(one)) if isinstance(one, Model) else str(one)
    adapter = lora or (one if isinstance(one, Model) and one.adapter else None)
    if isinstance(adapter, Model):
        adapter = local_engine(adapter).files(adapter).adapter
    return folder, str(adapter) if adapter else ""


def fingerprint(model: Model | Path | None) -> str:
    """Return the fingerprint of a model of the pool, or one of the files of a folder."""
    if model is None or isinstance(model, Model):
        return model.fingerprint if model else ""
    total = hashlib.sha256()
    for path in sorted(p for p in model.iterdir() if p.is_file()):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
