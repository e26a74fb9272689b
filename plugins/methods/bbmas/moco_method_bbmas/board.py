"""The blackboard: public, append-only, shown newest entries first kept."""

from __future__ import annotations

import attrs

from moco_core.converters import ints
from moco_toolkit_quoting import fence, tail

__all__ = ["Board", "Entry"]

_LEAST = 8  # characters of an entry below which it is left out


@attrs.frozen(kw_only=True)
class Entry:
    """One line of the record. ``id`` counts from 1; ``references`` are entries it speaks of, those it removes if ``kind``
    is ``remove``."""

    id: int
    author: str
    model: str
    round: int
    kind: str
    text: str
    references: tuple[int, ...] = attrs.field(default=(), converter=ints)

    def write(self, characters: int | None = None) -> str:
        """Return the entry as others read it, its text cut to its last so many characters."""
        text = self.text if characters is None else tail(self.text, characters)
        return f"#{self.id} {self.author} ({self.kind}):\n{fence('entry', text)}"


@attrs.define(eq=False)
class Board:
    """What was written so far. Nothing is ever taken back: removing an entry is an entry of its own."""

    entries: list[Entry] = attrs.field(factory=list)

    def post(
        self, author: str, model: str, round_: int, kind: str, text: str, references: tuple[int, ...] = ()
    ) -> Entry:
        entry = Entry(
            id=len(self.entries) + 1,
            author=author,
            model=model,
            round=round_,
            kind=kind,
            text=text,
            references=references,
        )
        self.entries.append(entry)
        return entry

    @property
    def shown(self) -> list[Entry]:
        """What agents read: everything that was not removed."""
        removed = {number for entry in self.entries if entry.kind == "remove" for number in entry.references}
        return [entry for entry in self.entries if entry.kind != "remove" and entry.id not in removed]

    def latest(self, author: str) -> Entry | None:
        """Return an author's newest entry."""
        return next((entry for entry in reversed(self.entries) if entry.author == author), None)

    def write(self, room: int | None = None) -> str:
        """Return the board in at most ``room`` characters: the oldest entries go first, the newest keeps its tail."""
        entries = self.shown
        if not entries:
            return "The blackboard is empty."
        written = [entry.write() for entry in entries]
        whole = "\n".join(written)
        if room is None or len(whole) <= room:
            return whole
        room -= len(_left_out(len(entries))) + 1
        size, kept = 0, 0
        while kept < len(written) and size + len(written[-1 - kept]) <= room:
            size += len(written[-1 - kept]) + 1
            kept += 1
        if not kept:
            newest = entries[-1]
            characters = room - len(newest.write(0))
            if characters < _LEAST:  # an empty entry would say that nothing was written
                return _left_out(len(entries))
            written, kept = [newest.write(characters)], 1
        return "\n".join([*([_left_out(len(entries) - kept)] if len(entries) > kept else []), *written[-kept:]])


def _left_out(count: int) -> str:
    return f"({count} earlier {'entry is' if count == 1 else 'entries are'} left out)"
