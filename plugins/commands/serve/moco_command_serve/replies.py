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

__all__ = ["DONE", "body", "call_row", "dumps", "event", "events", "headers", "spent_rows", "usage"]

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
    return {**_head(ask, outcome, kind), "choices": choices, "usage": usage(outcome), "moco": _own(ask, outcome)}


def events(ask: Ask, outcome: Outcome) -> Iterator[bytes]:
    """Yield the events of a reply that is sent piece by piece: one for every span of a reply."""
    raw = ask.text is not None
    head = _head(ask, outcome, "text_completion" if raw else "chat.completion.chunk")

    def choice(index: int, text: str | None, finish: str | None = None, *, first: bool = False) -> dict[str, Any]:
        if raw:
            return {"index": index, "text": text or "", "logprobs": None, "finish_reason": finish}
        delta = ({"role": "assistant"} if first else {}) | ({} if text is None else {"content": text})
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}

    rest = {"usage": None} if ask.include_usage else {}
    for index, reply in enumerate(outcome.replies):
        for number, piece in enumerate(_pieces(reply)):
            yield event({**head, "choices": [choice(index, piece, first=not number)], **rest})
    last = len(outcome.replies) - 1
    for index, reply in enumerate(outcome.replies):
        own = {"moco": _own(ask, outcome)} if index == last else {}
        yield event({**head, "choices": [choice(index, None, _FINISH[reply.finish_reason])], **own, **rest})
    if ask.include_usage:
        yield event({**head, "choices": [], "usage": usage(outcome)})
    yield DONE


def _pieces(reply: Reply) -> list[str]:
    """Return the parts that different models wrote, if they make up the reply; else the whole."""
    spans = [span.text for span in reply.spans if span.text]
    return spans if spans and "".join(spans) == reply.text else [reply.text]


def _message(reply: Reply) -> dict[str, Any]:
    return {"role": "assistant", "content": reply.text, "refusal": None}


def _head(ask: Ask, outcome: Outcome, kind: str) -> dict[str, Any]:
    prefix = "cmpl" if ask.text is not None else "chatcmpl"
    return {"id": f"{prefix}-{outcome.id}", "object": kind, "created": int(time.time()), "model": ask.model}


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
