"""Folders between machines that share no file system: one archive, in parts."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["PART", "has", "listing", "pack", "parts", "unpack"]

PART = 32 << 20
"""Bytes that are in memory at once."""


def listing(folder: Path) -> dict[str, int]:
    """Return the files of a folder with their sizes, by which another machine sees whether it has the same."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in files}


def has(folder: Path, files: Mapping[str, int]) -> bool:
    """Return whether a folder is here with these files."""
    return folder.is_dir() and all((folder / name).is_file() for name in files) and listing(folder) == dict(files)


def pack(folder: Path, archive: Path) -> None:
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname=".")


def parts(archive: Path) -> Iterator[bytes]:
    with archive.open("rb") as file:
        while part := file.read(PART):
            yield part


def unpack(archive: Path, folder: Path) -> None:
    """Unpack what :func:`pack` made; nothing is written outside of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
