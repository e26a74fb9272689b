"""Replies that come piece by piece, put together as if they had come at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["Stream", "is_stream", "joined"]

_GROWING = frozenset(
    {"content", "reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks", "refusal", "text"}
)
_LISTS = ("content", "tokens", "token_logprobs", "token_ids")


def is_stream(text: str) -> bool:
    """Whether a body holds server-sent events."""
    head = text[:200].lstrip()
    begins = head.startswith(("data:", "event:", "id:", "retry:"))
    return begins or (head.startswith(":") and re.search(r"[\r\n]data:", text) is not None)


def joined(text: str) -> dict[str, Any]:
    """Return the events of a body as one reply. Raises ValueError if they are damaged or end in the middle."""
    stream = Stream()
    stream.take(text + "\n\n")
    return stream.whole()


class Stream:
    """A reply that comes in events: :attr:`message` is what has come of its first choice."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self._reply: dict[str, Any] = {}
        self._choice: dict[str, Any] = {"index": 0, "finish_reason": None}
        self._ended = False
        self._failure: Any = None
        self._rest = ""

    def take(self, text: str) -> None:
        """Add a part of the body, which may end anywhere. Raises ValueError if an event is damaged."""
        lines = (self._rest + text).replace("\r\n", "\n")
        held = "\r" if lines.endswith("\r") else ""  # the other half of a line's end may come
        *blocks, rest = lines.removesuffix(held).replace("\r", "\n").split("\n\n")
        self._rest = rest + held
        for block in blocks:
            named = "error" if re.search(r"^event: ?error\s*$", block, re.MULTILINE) else ""
            lines_of_data = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
            for data in _events(lines_of_data):
                if not self._ended:
                    self._event(data, named)

    def _event(self, data: str, named: str) -> None:
        if data.strip() == "[DONE]":
            self._ended = True
            return
        event = json.loads(data)
        if not isinstance(event, Mapping):
            raise ValueError("an event is no JSON object")
        self._failure = self._failure or _failure(event, named)
        self._reply |= {k: v for k, v in event.items() if k != "choices" and v is not None}
        for piece in event.get("choices") or ():
            if isinstance(piece, Mapping) and piece.get("index") in (None, 0, "0"):
                _add(self._choice, self.message, piece)

    def whole(self) -> dict[str, Any]:
        """Return the reply. Raises ValueError if it ends in the middle."""
        if self._failure:
            return {**self._reply, "error": self._failure}
        if not self._ended and self._choice["finish_reason"] is None:
            raise ValueError("the stream ends in the middle")
        message = self.message
        if "text" in message:  # of a continued raw text
            message = {"content": message["text"]}
        return {**self._reply, "choices": [{**self._choice, "message": message}]}


def _events(lines: list[str]) -> list[str]:
    """Return the events in lines of data: one over several lines, or one a line where a server leaves out the empty ones."""
    whole = "\n".join(lines)
    if len(lines) > 1:
        try:
            json.loads(whole)
        except ValueError:
            return lines
    return [whole] if whole else []


def _failure(event: Mapping[str, Any], named: str) -> Any:
    """Return what an event says went wrong, None for one that brings a part of the reply."""
    beside = event.get("x_groq")
    for holder in (event, beside if isinstance(beside, Mapping) else {}):
        if holder.get("error"):
            return holder["error"]
    said = "choices" not in event and any(event.get(k) for k in ("detail", "message"))
    return event if said or "error" in (named, event.get("object"), event.get("type")) else None


def _add(choice: dict[str, Any], message: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Add one piece to what has come."""
    delta = piece.get("delta") or piece.get("message") or {}
    for key, value in {**delta, **({"text": piece["text"]} if "text" in piece else {})}.items():
        old = message.get(key)
        if key in _GROWING and old and isinstance(value, (str, list)):
            repeated = (
                not piece.get("delta") and "text" not in piece and value[: len(old)] == old
            )  # the whole at the end
            message[key] = (
                value if repeated else old + value if isinstance(value, type(old)) else [*_list(old), *_list(value)]
            )
        elif value is not None:
            message[key] = value
    for key, value in piece.items():
        if key == "logprobs" and isinstance(value, Mapping):
            into = choice.setdefault("logprobs", {})
            for name in _LISTS:
                if isinstance(value.get(name), list):
                    into[name] = into.get(name, []) + value[name]
        elif key == "token_ids" and isinstance(value, list):
            choice[key] = choice.get(key, []) + value
        elif key == "finish_reason" and value in ("", "null"):
            continue
        elif key not in ("delta", "message", "text", "index", "logprobs", "token_ids") and value is not None:
            choice[key] = value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
