"""Replies that come piece by piece, put together as if they had come at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["is_stream", "joined"]

_GROWING = ("content", "reasoning_content", "reasoning", "thinking", "refusal", "text")
_LISTS = ("content", "tokens", "token_logprobs", "token_ids")


def is_stream(text: str) -> bool:
    """Whether a body holds server-sent events."""
    head = text[:200].lstrip()
    return head.startswith(("data:", "event:", "id:", "retry:")) or (head.startswith(": ") and "\ndata:" in text)


def joined(text: str) -> dict[str, Any]:
    """Return the events of a body as one reply. Raises ValueError if they are damaged or end in the middle."""
    reply: dict[str, Any] = {}
    choice: dict[str, Any] = {"index": 0, "finish_reason": None}
    message: dict[str, Any] = {}
    ended = False
    for block in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        data = "\n".join(line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:"))
        if not data:
            continue
        if data.strip() == "[DONE]":
            ended = True
            break
        event = json.loads(data)
        if not isinstance(event, Mapping):
            raise ValueError("an event is no JSON object")
        reply |= {k: v for k, v in event.items() if k != "choices" and v is not None}
        for piece in event.get("choices") or ():
            if isinstance(piece, Mapping) and not piece.get("index"):
                _add(choice, message, piece)
    if reply.get("error"):
        return reply
    if not ended and choice["finish_reason"] is None:
        raise ValueError("the stream ends in the middle")
    if "text" in message:  # of a continued raw text
        message = {"content": message["text"]}
    return {**reply, "choices": [{**choice, "message": message}]}


def _add(choice: dict[str, Any], message: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Add one piece to what has come."""
    delta = piece.get("delta") or piece.get("message") or {}
    for key, value in {**delta, **({"text": piece["text"]} if "text" in piece else {})}.items():
        if key in _GROWING and isinstance(value, (str, list)) and isinstance(message.get(key), type(value)):
            message[key] += value
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
        elif key not in ("delta", "message", "text", "index", "logprobs", "token_ids") and value is not None:
            choice[key] = value
