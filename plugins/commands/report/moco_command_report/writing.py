"""Runs in, one HTML file out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from moco_command_report.grid import grid_of
from moco_command_report.loading import load
from moco_command_report.packing import Blocks
from moco_command_report.page import Page
from moco_command_report.sections import Section, Table, reply_of, transcript_of
from moco_core import StoreError, make_reports

__all__ = ["Written", "write_report"]


@attrs.frozen(kw_only=True)
class Written:
    """What came of it. ``replies`` and ``transcripts`` count the questions whose are in the file."""

    file: Path
    size: int
    runs: int
    questions: int
    replies: int
    transcripts: int
    problems: Sequence[str]
    notes: Sequence[str]

    def line(self) -> str:
        """Return one line for people."""
        kept = [f"{n:,} of {self.questions:,} {what}" for what, n in self._kept if n < self.questions]
        only = f"; {' and '.join(kept)} fit (--size)" if kept else ""
        return f"{self.file}: {self.runs} runs, {self.questions:,} questions, {self.size / 1e6:.1f} MB{only}"

    @property
    def _kept(self) -> tuple[tuple[str, int], ...]:
        return ("questions with replies", self.replies), ("with transcripts", self.transcripts)

    def data(self) -> dict[str, Any]:
        return attrs.asdict(self) | {"file": str(self.file)}


def write_report(places: Sequence[Path], out: Path, *, size: float = 25.0, force: bool = False) -> Written:
    """Write the runs in these places as one page of at most ``size`` MB (10^6 bytes).

    Raises ConfigError if there is nothing to show or it is not comparable, StoreError if the file cannot be written.
    """
    loaded, most = load(places, force), int(size * 1e6)
    replies, transcripts = Blocks(most), Blocks(most)
    with ExitStack() as stack:
        sections = [Section(report, loaded.heads, stack) for report in make_reports(loaded.runs)]
        tables = [Table(section) for section in sections]
        for number, place in _in_turn(sections):
            section = sections[number]
            found = [records.get(section.ids[place]) for records in section.records]
            tables[number].add(place, found)
            texts = replies.add((number, place), reply_of(found))
            transcripts.add((number, place), transcript_of(found), texts)
    for blocks in (replies, transcripts):
        blocks.close()
    problems = loaded.problems + [p for section in sections for records in section.records for p in records.problems]
    page = Page(
        {
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "notes": loaded.notes,
            "problems": problems,
            "grid": grid_of([section.comparison for section in sections]),
            "sections": [section.data(table.data()) for section, table in zip(sections, tables, strict=True)],
        }
    )
    kept = page.fill(most, replies, transcripts)
    return Written(
        file=out,
        size=_write(out, page.parts()),
        runs=len(loaded.runs),
        questions=sum(len(section.ids) for section in sections),
        replies=kept[0],
        transcripts=kept[1],
        problems=problems,
        notes=loaded.notes,
    )


def _in_turn(sections: Sequence[Section]) -> list[tuple[int, int]]:
    """Return (section, question) pairs, those that readers open most first, all sections alike."""
    ranked = ((rank, n, place) for n, section in enumerate(sections) for rank, place in enumerate(section.order()))
    return [(n, place) for _, n, place in sorted(ranked)]


def _write(out: Path, parts: Iterable[bytes]) -> int:
    """Write a file so that it is there whole or not at all, and return its size."""
    temporary = out.with_name(f"{out.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(parts)
        os.replace(temporary, out)
        return out.stat().st_size
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(f"cannot write {out}: {error.strerror or error}; choose another file with --out") from None
