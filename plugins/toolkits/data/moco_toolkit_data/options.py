"""The options that every dataset of this form takes."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import option

__all__ = ["SourceOptions"]


def _checksum(value: str) -> str | None:
    good = not value or (len(value) == 64 and all(c in "0123456789abcdefABCDEF" for c in value))
    return None if good else "expected 64 hexadecimal digits"


@attrs.frozen(kw_only=True)
class SourceOptions:
    """The options every dataset has."""

    path: str = option(
        "", holds="path", help="read this file or folder instead of the Hub: JSON, JSON lines, CSV, parquet, also .gz"
    )
    sha256: str = option("", help="checksum of the file at path, checked before reading", check=_checksum)
    subset: str | tuple[str, ...] = option("", help="keep these subsets only (a name or a list of names)")
    split_source: Literal["official", "study", "peer"] = option(
        "official", help="official: the source's own splits; study: the items of the reference study (once called peer)"
    )
    peer_items: str = option(
        "", holds="path", help="the reference study's published JSON, to find its items in the full source"
    )
    dev_size: int | None = option(None, ge=0, help="dev examples; 0: all; unset: as many as the reference study")
    test_size: int | None = option(None, ge=0, help="test examples; 0: all; unset: as many as the reference study")
    seed: int = option(0, help="seed of the splits and of the order of choices")
    revision: str = option("", help="Hub revision (branch, tag or commit) instead of the plugin's own")
    streaming: bool = option(False, help="read from the Hub without keeping a copy on disk")
    scan_rows: int = option(0, ge=0, help="look at this many rows per source split only; 0: all")
    shuffle_choices: bool = option(False, help="show the choices in an order seeded per item")
    answer_format: str | None = option(None, help="sentence that states the answer format; unset: the dataset's own")
    system: str = option("", help="system message of every question")
