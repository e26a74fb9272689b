"""Writing replies: bodies, events of a stream, headers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moco_command_serve.asking import Ask
from moco_command_serve.service import Outcome, Spent
from moco_core import Reply
from moco_core.types import CallRecord

__all__ = ["DONE", "Chunks", "body", "call_row", "dumps", "event", "headers", "spent_rows", "usage"]

_FINISH = {"eos": "stop", "stop": "stop", "length": "length"}
DONE = b"data: [DONE]\n\n"


def dumps(value: Any) -> bytes:
    """Return JSON in ASCII: half of a surrogate pair is text that JSON can hold and UTF-8 cannot."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def event(value: Any) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def usage(outcome: Outcome) -> dict[str, int]:
    used = outcome.usage
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


def spent_rows(spent: Sequence[Spent]) -> list[dict[str, Any]]:
    return [
        {
            "model": s.model,
            "role": s.role,
            "calls": s.calls,
            "prompt_tokens": s.usage.prompt_tokens,
            "completion_tokens": s.usage.completion_tokens,
            "cost": s.money,
        }
        for s in spent
    ]


def call_row(call: CallRecord) -> dict[str, Any]:
    """Return one call as a trace shows it."""
    return {
        "model": call.model,
        "kind": call.kind,
        "cached": call.cached,
        "prompt_tokens": call.usage.prompt_tokens,
        "completion_tokens": call.usage.completion_tokens,
        "seen": call.request,
        "said": call.response,
    }


def body(ask: Ask, outcome: Outcome) -> dict[str, Any]:
    """Return the body of a reply that is sent whole."""
    choices: list[dict[str, Any]] = []
    for index, reply in enumerate(outcome.replies):
        said = {"text": reply.text} if ask.text is not None else {"message": _message(reply)}
        choices.append({"index": index, **said, "logprobs": None, "finish_reason": _FINISH[reply.finish_reason]})
    kind = "text_completion" if ask.text is not None else "chat.completion"
    return {**_head(ask, outcome.id, kind), "choices": choices, "usage": usage(outcome), "moco": _own(ask, outcome)}


class Chunks:
    """The events of one stream. ``id`` is that of the reply."""

    def __init__(self, ask: Ask, id: str) -> None:
        self.ask, self._raw = ask, ask.text is not None
        self._head = _head(ask, id, "text_completion" if self._raw else "chat.completion.chunk")
        self._rest = {"usage": None} if ask.include_usage else {}

    def piece(self, index: int, text: str, *, first: bool) -> bytes:
        """Return the event that adds a text to a reply."""
        return self._event(index, text, first=first)

    def end(self, outcome: Outcome, sent: Sequence[str]) -> Iterator[bytes]:
        """Yield what is left once a request is answered: of each reply what was not sent, one event for every span of one
        of which nothing was; how it ended; usage.
        """
        for index, reply in enumerate(outcome.replies):
            if not reply.text.startswith(sent[index]):  # it turned out to be something else, and is not passed off as this
                problem = "the reply differs from what was sent of it; ask again without stream"
                yield event({"error": {"message": problem, "type": "server_error", "param": None, "code": "changed"}})
                yield DONE
                return
            left = reply.text[len(sent[index]) :]
            for number, piece in enumerate(([left] if left else []) if sent[index] else _pieces(reply)):
                yield self._event(index, piece, first=not number and not sent[index])
        last = len(outcome.replies) - 1
        for index, reply in enumerate(outcome.replies):
            own: dict[str, Any] = {"moco": _own(self.ask, outcome)} if index == last else {}
            yield self._event(index, None, _FINISH[reply.finish_reason], **own)
        if self.ask.include_usage:
            yield event({**self._head, "choices": [], "usage": usage(outcome)})
        yield DONE

    def _event(
        self, index: int, text: str | None, finish: str | None = None, *, first: bool = False, **own: Any
    ) -> bytes:
        said: dict[str, Any] = {"text": text or ""}
        if not self._raw:
            said = {"delta": ({"role": "assistant"} if first else {}) | ({} if text is None else {"content": text})}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish}
        return event({**self._head, "choices": [choice], **own, **self._rest})


def _pieces(reply: Reply) -> list[str]:
    """Return the parts that different models wrote, if they make up the reply; else the whole."""
    spans = [span.text for span in reply.spans if span.text]
    return spans if spans and "".join(spans) == reply.text else [reply.text]


def _message(reply: Reply) -> dict[str, Any]:
    return {"role": "assistant", "content": reply.text, "refusal": None}


def _head(ask: Ask, id: str, kind: str) -> dict[str, Any]:
    prefix = "cmpl" if ask.text is not None else "chatcmpl"
    return {"id": f"{prefix}-{id}", "object": kind, "created": int(time.time()), "model": ask.model}


def _own(ask: Ask, outcome: Outcome) -> dict[str, Any]:
    out: dict[str, Any] = {"usage": spent_rows(outcome.spent), "decision": outcome.decision or None}
    if any(reply.abstained for reply in outcome.replies):
        out["abstained"] = [reply.abstained for reply in outcome.replies]
    if ask.trace:
        out["trace"] = [call_row(call) for call in outcome.calls]
        out["meta"] = [dict(reply.meta) for reply in outcome.replies]
    return out


def headers(method: str, models: Sequence[str], outcome: Outcome | None, replay: str) -> list[tuple[bytes, bytes]]:
    """Return what the headers of a reply tell; of a stream, whose head is sent first, only what is known then."""
    told: Mapping[str, str] = {"method": method, "models": ", ".join(models)}
    if outcome is not None:
        calls = sum(s.calls for s in outcome.spent)
        told = {**told, "calls": str(calls), "decision": outcome.decision, "seconds": f"{outcome.seconds:.3f}"}
    if replay:
        told = {**told, "replay-id": replay}
    return [(f"x-moco-{name}".encode(), _safe(value)) for name, value in told.items() if value]


def _safe(value: str) -> bytes:
    """Return a value as a header may hold it: printable letters of Latin-1."""
    return "".join(c if c.isprintable() else " " for c in value).encode("latin-1", "replace")[:1024]
