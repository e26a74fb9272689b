"""What is installed, from the metadata of distributions alone; nothing of theirs is imported.

The folders on ``sys.path`` are read directly: ``importlib.metadata`` takes longer to import than everything else that
``moco list`` does, and is left to what is not a folder.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from moco_core.kinds import SPEC


class Distribution(Protocol):
    """What is needed of a distribution: the text of a file of its metadata, None if it has none of that name."""

    def read_text(self, filename: str, /) -> str | None: ...


class EntryPoint(NamedTuple):
    """One entry point: ``name = module:attr`` in a group, and the distribution that states it."""

    name: str
    group: str
    module: str
    attr: str
    dist: Distribution


class PluginInfo(NamedTuple):
    """One plugin as its metadata describes it.

    ``attribute`` is what its entry point names within ``module`` (commands only), ``distribution`` and ``version`` are
    empty for a plugin registered by hand. ``problem`` says why it cannot be used.
    """

    kind: str
    name: str
    module: str
    attribute: str = ""
    distribution: str = ""
    version: str = ""
    summary: str = ""
    keywords: tuple[str, ...] = ()
    problem: str = ""

    @property
    def level(self) -> str:
        """What a method's models exchange, from the keyword ``level-...``."""
        return next((k.removeprefix("level-") for k in self.keywords if k.startswith("level-")), "")

    @property
    def spec(self) -> int | None:
        """The hook specification the plugin was made for, from the keyword ``spec-N``."""
        for keyword in self.keywords:
            if match := re.fullmatch(r"spec-(\d+)", keyword):
                return int(match[1])
        return None


def distribution_name(kind: str, name: str) -> str:
    """Return the distribution that, by convention, provides a plugin."""
    return f"moco-{kind}-{name}".replace("_", "-").lower()


def read_plugin_info(kind: str, point: EntryPoint) -> PluginInfo:
    """Return what the distribution of an entry point states of its plugin."""
    facts = _facts(point.dist)
    info = PluginInfo(
        kind=kind,
        name=point.name,
        module=point.module,
        attribute=point.attr,
        distribution=facts["name"],
        version=facts["version"],
        summary=facts["summary"],
        keywords=tuple(k for k in re.split(r"[,\s]+", facts["keywords"]) if k),
    )
    if info.spec is not None and info.spec != SPEC:
        which = "upgrade the plugin" if info.spec < SPEC else "upgrade moco-core"
        return info._replace(problem=f"was made for hook specification {info.spec}, this core has {SPEC}; {which}")
    return info


def installed_points() -> list[EntryPoint]:
    """Return the entry points of all ``moco.*`` groups. The first distribution of a name on ``sys.path`` counts."""
    points: list[EntryPoint] = []
    seen: set[str] = set()
    for place in sys.path:
        for dist in _distributions(place or os.curdir):
            text = dist.read_text("entry_points.txt") or ""
            if "[moco." not in text:
                continue  # parsing every distribution's metadata would take longer than all the rest
            # a folder is called after its distribution: one file less to read
            name = normal(dist.name if isinstance(dist, _Folder) else _facts(dist)["name"])
            if name not in seen:
                seen.add(name)
                points += _points(text, dist)
    return points


def normal(name: str) -> str:
    """Return a distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


class _Folder(NamedTuple):
    """The metadata of a distribution in a folder of its own."""

    path: str
    name: str

    def read_text(self, filename: str, /) -> str | None:
        try:
            with io.FileIO(f"{self.path}/{filename}") as file:  # quicker than a text file, and there are hundreds
                return file.readall().decode()
        except (OSError, UnicodeDecodeError):
            return None


def _distributions(place: str) -> Iterator[Distribution]:
    try:
        names = sorted(os.listdir(place))
    except NotADirectoryError:
        from importlib import metadata

        yield from metadata.distributions(path=[place])
        return
    except OSError:
        return
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            yield _Folder(f"{place}/{name}", name.rpartition(".")[0].partition("-")[0])


def _points(text: str, dist: Distribution) -> Iterator[EntryPoint]:
    """Yield the entry points of the ``moco.*`` groups that an ``entry_points.txt`` names."""
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif group.startswith("moco.") and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            module, _, attr = value.partition("[")[0].partition(":")
            yield EntryPoint(name.strip(), group, module.strip(), attr.strip(), dist)


def _facts(dist: Distribution) -> dict[str, str]:
    """Return name, version, summary and keywords from the head of a distribution's metadata (the rest is its README)."""
    facts = dict.fromkeys(("name", "version", "summary", "keywords"), "")
    text = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
    for line in map(str.strip, io.StringIO(text, newline=None)):
        if not line:
            break
        key, sign, value = line.partition(":")
        if sign and key.lower() in facts:
            facts[key.lower()] = value.strip()
    return facts
