"""What a program may use, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from moco_core.errors import ConfigError, MocoError

__all__ = ["Limits", "Outcome", "SandboxError", "SandboxUnavailable", "Status"]

Status = Literal["passed", "failed", "timeout", "memory", "processes", "output"]
"""``passed`` means that the end of the program was reached; the last four say which limit ended it."""


class SandboxError(MocoError):
    """The sandbox itself failed: nothing is known about the program."""


class SandboxUnavailable(ConfigError):
    """This machine cannot isolate programs as asked; the message says how to change that."""


@attrs.frozen(kw_only=True)
class Limits:
    """What one program may use: seconds of wall clock, bytes, and numbers of processes (threads count)."""

    seconds: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    memory: int = attrs.field(default=1 << 30, validator=attrs.validators.ge(1 << 26))
    processes: int = attrs.field(default=32, validator=attrs.validators.ge(1))
    file_size: int = attrs.field(default=16 << 20, validator=attrs.validators.ge(0))
    disk: int = attrs.field(default=64 << 20, validator=attrs.validators.ge(1 << 16))
    output: int = attrs.field(default=1 << 20, validator=attrs.validators.ge(1 << 10))

    def params(self) -> dict[str, Any]:
        """Return the limits as JSON data: part of what a result depends on."""
        return attrs.asdict(self)


@attrs.frozen(kw_only=True)
class Outcome:
    """How a program ended. ``detail`` is the error it ended with, or the limit it met; one line."""

    status: Status
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def to_json(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        return cls(status=data["status"], detail=data["detail"])
