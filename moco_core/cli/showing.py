"""The text of ``moco show``, derived from the plugin's class."""

from __future__ import annotations

import inspect
import re
from typing import Any

import attrs

from moco_core.cli.describing import OptionInfo, describe
from moco_core.config import KEYS, Settings
from moco_core.data import Dataset
from moco_core.discovery import PluginInfo
from moco_core.methods import Method
from moco_core.options import plain
from moco_core.types import Sampling


def show_rows(info: PluginInfo, cls: type[Any]) -> dict[str, Any]:
    """Return what is known about a plugin as JSON data."""
    body: dict[str, Any] = {
        "kind": info.kind,
        "name": info.name,
        "summary": info.summary or _doc(cls).splitlines()[0],
        "distribution": info.distribution,
        "version": info.version,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "options": [{**attrs.asdict(o), "default": plain(o.default)} for o in describe(cls.Options)],
    }
    if issubclass(cls, Method):
        body |= {"level": cls.level, "title": cls.title, "paper": cls.paper}
    if issubclass(cls, Dataset):
        body["facts"] = attrs.asdict(cls.facts)
    return body


def show_lines(info: PluginInfo, cls: type[Any]) -> list[str]:
    """Return the page about a plugin."""
    origin = f"{info.distribution} {info.version}".strip() or f"registered from {info.module}"
    lines = [f"{info.kind} {info.name} ({origin})", "", *_doc(cls).splitlines(), ""]
    if issubclass(cls, Method):
        lines += [f"level:  {cls.level}"] + ([f"paper:  {cls.paper}"] if cls.paper else []) + [""]
    if issubclass(cls, Dataset):
        facts = attrs.asdict(cls.facts)
        lines += [f"{k + ':':16}{_fact(k, v)}" for k, v in facts.items() if v not in ("", None, False)] + [""]
    options = describe(cls.Options)
    if not options:
        return [*lines, "It takes no options."]
    lines.append("options:")
    for option in options:
        lines += _option_lines(option)
    return lines


def run_rows() -> list[dict[str, Any]]:
    """Return the keys of a run configuration as JSON data."""
    plugins = [{"name": name, "help": text} for name, text in KEYS.items()]
    settings = [{**attrs.asdict(o), "default": plain(o.default)} for o in _settings()]
    return plugins + settings


def run_lines() -> list[str]:
    """Return the page about run configurations."""
    lines = ["The keys of a run configuration (moco bench FILE.yaml, or -o KEY=VALUE):", ""]
    for name, text in KEYS.items():
        lines += [f"  {name}", f"      {text}"]
    for option in _settings():
        lines += _option_lines(option)
    return [
        *lines,
        "",
        "A section is a plugin's name, or a mapping of name and options (moco show NAME); those of methods and datasets take a",
        "label, their name in tables. Relative paths in a file start from its folder, those of the command line from this one.",
        "What was computed is not computed again: running again goes on. A run's folder in place of a file runs it again.",
    ]


def _settings() -> list[OptionInfo]:
    own = [o for o in describe(Settings) if o.name != "sampling"]
    return own + [attrs.evolve(o, name=f"sampling.{o.name}") for o in describe(Sampling)]


def _fact(name: str, value: Any) -> str:
    if name == "sizes":
        return f"{value[0]:,} dev, {value[1]:,} test"
    # a branch or a tag; several words say how several sources are pinned
    if name == "revision" and " " not in value and not re.fullmatch("[0-9a-f]{7,40}", value):
        return f"{value} (not pinned; a run records the commit it read, the option revision takes a fixed one)"
    return str(value)


def _option_lines(option: OptionInfo) -> list[str]:
    default = "required" if option.required else f"default {_value(option.default)}"
    limits = f" {option.range}" if option.range else ""
    lines = [f"  {option.name}: {option.type}{limits}, {default}"]
    if option.help:
        lines.append(f"      {option.help}")
    if option.plugin:
        lines.append(
            f"      each a section: the name of a {option.plugin}, or name and options (moco list {option.plugin})"
        )
    if option.paper:
        lines.append(f"      paper: {option.paper}")
    return lines


def _value(value: Any) -> str:
    return "none" if value is None else str(plain(value))


def _doc(cls: type[Any]) -> str:
    return inspect.cleandoc(cls.__doc__ or cls.__name__)
