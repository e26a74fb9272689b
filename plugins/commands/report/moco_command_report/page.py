"""The HTML file: the application, what it shows at once, and the blocks that it opens when they are wanted.

Nothing but the application runs: a content security policy names its hash, forbids every request, and all that models wrote
is base64.
"""

from __future__ import annotations

import hashlib
import math
from base64 import b64encode
from collections.abc import Iterator, Mapping
from html import escape
from importlib import resources
from typing import Any

from moco_command_report.packing import Blocks, Key, compressed

__all__ = ["Page"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'; form-action 'none'; \
script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<div id="app"><noscript>{findings}<p>This page needs JavaScript to show more.</p></noscript></div>
<script type="text/plain" id="summary">{summary}</script>
<script>{script}</script>
"""
_BLOCK = b'<script type="text/plain" id="%s%d">%s</script>\n'


class Page:
    """One page. ``summary`` is what it shows at once."""

    def __init__(self, summary: Mapping[str, Any]) -> None:
        self.summary = _clean(summary)
        self._blocks: list[bytes] = []

    def fill(self, most: int, replies: Blocks, transcripts: Blocks) -> tuple[int, int]:
        """Put in as many blocks as fit into ``most`` bytes, replies first; return how many questions have each."""
        room = most - len(self._head()) - 5 * len(replies.place) - len("</body></html>\n")
        kept = self._add("replies", replies, len(replies.done), room)
        # a transcript is read with its replies: those of questions without them stay out
        whole = next((b for key, b in transcripts.place.items() if key not in kept), len(transcripts.done))
        room -= sum(map(len, self._blocks))
        return len(kept), len(self._add("transcripts", transcripts, whole, room))

    def _add(self, name: str, blocks: Blocks, most: int, room: int) -> set[Key]:
        """Add the first blocks, as far as there is room, and return the keys of what they hold."""
        count = 0
        for block in blocks.done[:most]:
            part = _BLOCK % (name.encode(), count, block)
            if len(part) > room:
                break
            room -= len(part)
            count += 1
            self._blocks.append(part)
        place = {key: block for key, block in blocks.place.items() if block < count}
        for number, section in enumerate(self.summary["sections"]):
            section[name] = [place.get((number, i), -1) for i in range(len(section["questions"]["ids"]))]
        return {*place}

    def parts(self) -> Iterator[bytes]:
        """Yield the file. The application stands before the blocks, and runs while they are still being read."""
        yield self._head()
        yield from self._blocks
        yield b"</body></html>\n"

    def _head(self) -> bytes:
        script, style = _asset("report.js"), _asset("report.css")
        names = dict.fromkeys(section["dataset"] for section in self.summary["sections"])
        found = (text for section in self.summary["sections"] for text in section["findings"])
        return _PAGE.format(
            script_hash=_hash(script),
            style_hash=_hash(style),
            title=escape(f"{', '.join(names)} - MoCo report"),
            style=style,
            findings="".join(f"<p>{escape(text)}</p>" for text in found),
            summary=compressed(self.summary).decode(),
            script=script,
        ).encode("utf-8", "backslashreplace")


def _asset(name: str) -> str:
    return resources.files("moco_command_report").joinpath("asset", name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _clean(value: Any) -> Any:
    """Return JSON data in which numbers that JSON does not know are none, and text is text."""
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
