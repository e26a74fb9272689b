"""Which files of a copy of a Hub repository belong to a configuration, as the card in its README.md states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["card_files"]


def card_files(folder: Path, config: str) -> dict[Path, str]:
    """Return the files of one configuration with their splits; empty if the folder has no card or it states none.

    Without a name the configuration is the one called "default", the one marked as default, or the only one.
    """
    return {
        file: split
        for split, patterns in _patterns(_configuration(_front(folder / "README.md"), config))
        for pattern in patterns
        for file in _matching(folder, pattern)
    }


def _matching(folder: Path, pattern: str) -> list[Path]:
    if Path(pattern).anchor:  # files elsewhere are none of this folder
        return []
    try:
        return sorted(f for f in folder.glob(pattern.removeprefix("./")) if f.is_file())
    except ValueError:  # empty, or stars where none may be
        return []


def _front(path: Path) -> Mapping[str, Any]:
    """The YAML between the two lines of dashes that a card begins with; empty if there is none that can be read."""
    try:
        text = path.read_text(encoding="utf-8")
        head = text.split("\n---", 1)[0].removeprefix("---\n") if text.startswith("---\n") else ""
        found = yaml.safe_load(head)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # a folder of one's own may have any README
        return {}
    return found if isinstance(found, Mapping) else {}


def _configuration(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    stated = card.get("configs")
    configs = [c for c in stated if isinstance(c, Mapping)] if isinstance(stated, list) else []
    for config in configs:
        if str(config.get("config_name", "")) == (name or "default") or (not name and config.get("default") is True):
            return config
    return configs[0] if len(configs) == 1 and not name else {}


def _patterns(config: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    stated = config.get("data_files")
    if isinstance(stated, Mapping):
        stated = [{"split": split, "path": path} for split, path in stated.items()]
    for entry in [stated] if isinstance(stated, str) else stated or ():
        if isinstance(entry, str):  # files without a split are what the library calls train
            yield "train", [entry]
        elif isinstance(entry, Mapping) and "path" in entry:
            paths: Iterable[Any] = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            yield str(entry.get("split", "train")), [p for p in paths if isinstance(p, str)]
