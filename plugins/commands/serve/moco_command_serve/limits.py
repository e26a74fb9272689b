"""What a server bounds, and how it says no."""

from __future__ import annotations

import attrs

from moco_core import MocoError

__all__ = ["CapExceeded", "Limits", "Refused"]


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of a server; None is no bound. Times are seconds, ``body`` is bytes.

    ``requests`` are worked on at once, with ``connections`` open; a head and a body have to arrive within ``patience``. A
    request may take ``deadline``, and make ``calls`` that read and write ``tokens``. Once ``min_responses`` members of a
    panel have spoken, the others have ``grace``. A comment is sent every ``keep_alive`` of a stream in which nothing happens.
    Systems may be nested ``depth`` deep; the last ``replays`` transcripts are kept.
    """

    requests: int = 256
    connections: int = 2048
    body: int = 1 << 20
    patience: float = 20.0
    deadline: float = 600.0
    calls: int | None = 1000
    tokens: int | None = None
    choices: int = 16
    min_responses: int = 1
    grace: float | None = None
    keep_alive: float = 10.0
    depth: int = 8
    replays: int = 0


class CapExceeded(MocoError):
    """A request needed more calls or tokens than it may."""


class Refused(Exception):
    """A request that is answered with an error. The text is for the client and holds nothing of the machine."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, wait: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.wait = status, param, code, wait

    @property
    def body(self) -> dict[str, object]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}
