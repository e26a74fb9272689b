"""Where the rows of a dataset come from: the Hub, a file, or a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import attrs

from moco_core import DatasetError, Split
from moco_toolkit_data.card import card_files
from moco_toolkit_data.hub import Hub, hub_rows
from moco_toolkit_data.options import SourceOptions
from moco_toolkit_data.readers import check_sha256, data_files, read_rows
from moco_toolkit_data.rows import Row

__all__ = ["Source", "SourceSpec"]

_ALIASES = {"valid": "validation", "val": "validation", "dev": "validation"}
_NAMES = ("train", "validation", "valid", "val", "dev", "test")


@attrs.frozen(kw_only=True)
class SourceSpec:
    """What of a dataset decides where its rows are: its name, its options, and what its class states.

    ``hubs`` are the Hub configurations to read, ``revision`` the pin that the dataset's facts state; ``file_names`` is how
    its file is called, endings aside, in a folder of several datasets; ``access_hint`` says how to get a source that is gated
    or not on the Hub. ``commits`` gets the commit at which each Hub repository was read.
    """

    name: str
    options: SourceOptions
    hubs: tuple[Hub, ...]
    revision: str
    dev_from: tuple[str, ...]
    test_from: tuple[str, ...]
    subsets: tuple[str, ...]
    file_names: tuple[str, ...]
    access_hint: str
    commits: dict[str, str]

    def wanted(self, split: Split | None) -> tuple[str, ...]:
        """Return the names of the source's splits that a split of ours is read from; for None, of both."""
        if split is None:
            return tuple(dict.fromkeys((*self.dev_from, *self.test_from)))
        return self.dev_from if split == "dev" else self.test_from


class Source:
    """The rows of a dataset's source, split by split.

    ``study``: they are in the reference study's published form, which states dev and test itself.
    ``undivided``: a local copy says nothing about splits, so that it has to be cut by seed.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec
        options = spec.options
        if not options.path and not spec.hubs:
            advice = spec.access_hint or "give a local copy"
            raise DatasetError(f"{spec.name} is not on the Hub: set the option path ({advice})")
        self._splits: dict[Path, str] = {}  # what a card says of files, beside their subsets
        self._subsets: dict[Path, str] = {}
        self._files = self._found() if options.path else []
        if options.path and options.sha256:
            if len(self._files) != 1 or Path(options.path).is_dir():
                raise DatasetError(f"{options.path}: sha256 is the checksum of one file, but path is a folder")
            check_sha256(self._files[0], options.sha256)
        first = self._peek() if options.path else None
        self.study = first is not None and first.study
        self._by_name = not self.study and any(map(self._stated, self._files))
        self.undivided = bool(options.path) and not self.study and not self._states_splits(first)

    def rows(self, split: Split | None) -> Iterator[Row]:
        """Yield the rows that belong to a split of ours, or all that dev or test may come from."""
        spec, options = self._spec, self._spec.options
        if not options.path:
            for hub in spec.hubs:
                for name in spec.wanted(split):
                    revision = options.revision or hub.revision or spec.revision
                    found = hub_rows(
                        hub,
                        name,
                        revision=revision,
                        streaming=options.streaming,
                        access_hint=spec.access_hint,
                        commits=spec.commits,
                    )
                    yield from islice(found, options.scan_rows or None)
            return
        wanted = self._names(split)
        # in the order in which the library is asked for the splits; files that state none keep theirs
        for file in sorted(self._files, key=lambda f: wanted.index(s) if (s := self._stated(f)) in wanted else -1):
            stated = self._stated(file)
            if self._by_name and stated and stated not in wanted:
                continue
            subset = self._subsets.get(file) or _subset(file, Path(options.path).expanduser(), spec.subsets)
            rows = read_rows(file, subset=subset)
            yield from islice((r for r in rows if self._fits(r, split, wanted)), options.scan_rows or None)

    def _names(self, split: Split | None) -> list[str]:
        return [_ALIASES.get(name, name) for name in self._spec.wanted(split)]

    def _fits(self, row: Row, split: Split | None, wanted: list[str]) -> bool:
        if self.study:
            return split is None or row.split == split
        if self._by_name or row.split not in _NAMES:
            return True
        return _ALIASES.get(row.split, row.split) in wanted

    def _peek(self) -> Row | None:
        return next((row for file in self._files for row in islice(read_rows(file), 1)), None)

    def _states_splits(self, first: Row | None) -> bool:
        return self._by_name or (first is not None and first.split in _NAMES)

    def _stated(self, file: Path) -> str:
        """The source split that the card, or else the name of a file says it holds; empty if nothing does."""
        return self._splits.get(file) or _stated(file, Path(self._spec.options.path).expanduser())

    def _found(self) -> list[Path]:
        """The files to read at the option path."""
        spec = self._spec
        path = Path(spec.options.path).expanduser()
        if path.is_file():
            return [path]
        if not path.is_dir():
            advice = f"; {spec.access_hint}" if spec.access_hint else ""
            raise DatasetError(f"{path}: no such file or folder{advice}")
        found = data_files(path)
        # a folder that holds several datasets, as the reference study publishes them: take the file called like this one
        named = [f for f in found if f.name.split(".")[0] in spec.file_names]
        if named:
            return named
        hubs = spec.hubs
        single = [path / hub.file for hub in hubs if hub.file and (path / hub.file).is_file()]
        if single:
            return single
        # a copy of the Hub repository: its card says which file is what, else its folders and files do
        readable = set(found)
        for hub in hubs:
            for file, split in card_files(path, hub.config).items():
                if file in readable:
                    self._splits[file], self._subsets[file] = _ALIASES.get(split, split), hub.subset
        if self._splits:
            return [f for f in found if f in self._splits]
        for hub in hubs:
            inside = [f for f in found if hub.config and hub.config in _places(f, path)]
            if inside and not hub.subset:
                return inside
        if not found:
            raise DatasetError(
                f"{path}: no data file in this folder (.jsonl, .json, .csv, .tsv, .parquet, .arrow, or .gz)"
            )
        return found


def _places(file: Path, root: Path) -> tuple[str, ...]:
    """The folders that a file is in and its own name without endings."""
    return (*file.relative_to(root).parts[:-1], file.name.split(".")[0])


def _stated(file: Path, root: Path) -> str:
    """The source split that a file's name or folder states, such as validation in validation-00000-of-00001.parquet."""
    if file == root:
        return ""
    words = [w for part in file.relative_to(root).parts for w in re.split(r"[^a-z0-9]+", part.lower())]
    # authors publish small cuts as dev1k, test1k
    names = [re.sub(r"^(train|dev|test|val)\d+k$", r"\1", w) for w in words]
    found = next((n for n in reversed(names) if n in _NAMES), "")
    return _ALIASES.get(found, found)


def _subset(file: Path, root: Path, known: tuple[str, ...]) -> str:
    if file == root:
        parts: tuple[str, ...] = (file.name,)
    else:
        parts = file.relative_to(root).parts
    stems = [p.split(".")[0] for p in parts]
    return next((s for s in known if any(stem == s for stem in stems)), "") or next(
        (s for s in sorted(known, key=len, reverse=True) if any(s in stem for stem in stems)), ""
    )
