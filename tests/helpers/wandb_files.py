"""Reading what wandb has written offline."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def records(data: bytes) -> Iterator[bytes]:
    """The records of a file as wandb writes it: after seven bytes, a log in the format of LevelDB."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""
