"""Find the items that the reference study used inside the full source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from moco_core import DatasetError, Example, Split
from moco_toolkit_data.readers import read_rows
from moco_toolkit_data.rows import Drop, Row
from moco_toolkit_data.source import SourceSpec

__all__ = ["StudyItems"]


class StudyItems:
    """The keys of the study's items, read from its published JSON; memory holds one key per item.

    ``records`` makes examples of a row, ``key`` tells which of them are the same item. A key is used as often as the study
    has it, so that a question repeated upstream is not taken twice.
    """

    def __init__(
        self, spec: SourceSpec, records: Callable[[Row], Iterable[Example | Drop]], key: Callable[[Example], str]
    ) -> None:
        self._key = key
        self._left: dict[Split, dict[str, int]] = {"dev": {}, "test": {}}
        path = Path(spec.options.peer_items).expanduser()
        if path.is_dir():
            named = [f for f in sorted(path.iterdir()) if f.name.split(".")[0] in spec.file_names]
            if not named:
                raise DatasetError(f"{path}: no file of {spec.name} in this folder of published items")
            path = named[0]
        for row in read_rows(path):
            if not row.study:
                raise DatasetError(f"{row.where()}: not in the reference study's published form (split dev or test)")
            split: Split = "dev" if row.split == "dev" else "test"
            for made in records(row):
                if not isinstance(made, Drop):
                    self._left[split][key(made)] = self._left[split].get(key(made), 0) + 1

    def holds(self, split: Split, row: Row, example: Example) -> bool:
        """Tell whether an example of the source is one of the study's items of this split, and count it as used."""
        left = self._left[split]
        key = self._key(example)
        if left.get(key, 0) < 1:
            return False
        left[key] -= 1
        return True

    def missing(self, split: Split) -> int:
        """Return how many of the study's items were not found in the source."""
        return sum(self._left[split].values())
