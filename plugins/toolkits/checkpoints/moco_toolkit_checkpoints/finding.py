"""Where a checkpoint lies: a local folder, or a snapshot of a Hub repository."""

from __future__ import annotations

from pathlib import Path

from moco_core.errors import ConfigError
from moco_toolkit_checkpoints.fingerprints import read_json
from moco_toolkit_checkpoints.hub import fetch

__all__ = ["base_of", "find", "is_adapter"]


def find(name: str, revision: str | None, where: str, *, weights: bool = False) -> tuple[Path, str]:
    """Return (local folder, Hub repository or ""); of a repository small files alone are fetched, without ``weights``.

    Raises ConfigError.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve(), ""
    looks_local = name.startswith(("/", ".", "~")) or name.count("/") > 1 or path.exists()
    if looks_local:
        what = "is not a folder" if path.exists() else "does not exist"
        raise ConfigError(f"{where}: {name} {what}; give the folder of a checkpoint or a Hub id")
    try:
        return Path(fetch(name, revision, weights=weights)), name
    except ConfigError as error:
        raise ConfigError([f"{where}: {p}" for p in error.problems]) from None


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter and no checkpoint."""
    return (folder / "adapter_config.json").exists() and not (folder / "config.json").exists()


def base_of(folder: Path, adapter: str, where: str) -> tuple[str, str | None]:
    """Return the base that an adapter's configuration names, and its revision.

    A relative name is looked for beside the adapter first. Raises ConfigError if there is none.
    """
    config = read_json(folder / "adapter_config.json")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"{where}: {adapter} is an adapter that names no base; give the base as model, and this as its adapter"
        )
    beside = folder.parent / base
    return str(beside) if beside.is_dir() else base, config.get("revision")
