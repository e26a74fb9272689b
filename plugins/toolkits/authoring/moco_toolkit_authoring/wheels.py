"""Building the wheels of a repository of plugins, and the extras of the core that name them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from moco_core.errors import ConfigError, StoreError

__all__ = ["build_wheels", "extra_of", "synced_extra"]


def build_wheels(folders: Sequence[Path], target: Path) -> list[Path]:
    """Build one wheel for each folder into ``target``, in this process, and return their paths.

    Raises ConfigError without hatchling, StoreError if one cannot be built.
    """
    try:
        from hatchling.builders.wheel import WheelBuilder
    except ModuleNotFoundError:
        raise ConfigError("building wheels needs hatchling: pip install hatchling") from None
    out = []
    for folder in folders:
        try:
            (wheel,) = WheelBuilder(str(folder)).build(directory=str(target.resolve()), versions=["standard"])
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder}: its wheel cannot be built: {error}") from None
        out.append(Path(wheel))
    return out


def _pattern(extra: str) -> re.Pattern[str]:
    return re.compile(rf"^{extra} = \[(?P<body>[^\]]*(?:\[[^\]]*\][^\]]*)*)\]", re.MULTILINE)


def extra_of(text: str, extra: str) -> list[str]:
    """Return the distributions that an extra of a pyproject.toml names, without their ranges. Raises ConfigError."""
    found = _pattern(extra).search(text)
    if found is None:
        raise ConfigError(f"pyproject.toml: the extra {extra!r} is missing")
    return [re.split(r"[^a-z0-9-]", r, maxsplit=1)[0] for r in re.findall(r'"([^"]+)"', found["body"])]


def synced_extra(text: str, extra: str, distributions: Sequence[str], versions: str) -> str:
    """Return a pyproject.toml whose ``extra`` names these distributions; one without the extra is left alone."""
    lines = "".join(f'    "{name}{versions}",\n' for name in distributions)
    return _pattern(extra).sub(lambda _: f"{extra} = [\n{lines}]", text, count=1)
