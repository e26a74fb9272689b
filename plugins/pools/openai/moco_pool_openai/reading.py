"""From replies to generations, whatever form a server gives them. Nothing here talks to anybody."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moco_core.models import Call
from moco_core.types import FinishReason, Generation
from moco_pool_openai.dialects import Dialect
from moco_pool_openai.failures import Damaged, RequestFailed, stated_failure, words_of
from moco_pool_openai.streams import Stream, is_stream, joined
from moco_pool_openai.usage import used_by
from moco_toolkit_checkpoints.growing import answer_so_far
from moco_toolkit_checkpoints.reasoning import split

__all__ = ["Listener", "generation", "parsed"]

_LARGEST = 2**26
"""Characters of one body. No reply is that long."""

_MEANINGS = {
    "filtered": r"filter|safety|recitation|prohibited|block|spii|refus|sensitive|toxic|guardrail|jailbreak|moderat",
    "length": r"length|max\w*[ _]tokens|token[ _]?limit|^limit$|context_window|truncat|repetition|^incomplete$",
    "broken": r"error|abort|cancel|fail|time_?out|interrupt|overload|disconnect|insufficient|unavailable",
    "tool": r"tool|function_?call",
    "turn": r"^(eos|eos_token|end_turn)$",
    "stop": r"^stop_sequence$",
    "whole": r"^(stop|complete|null)?$",
}
"""What services call the end of a reply, by what it means: the first that fits counts."""


@functools.lru_cache(maxsize=64)
def _meaning(finish: str) -> str:
    return next((meaning for meaning, words in _MEANINGS.items() if re.search(words, finish)), "unknown")


def parsed(text: str) -> Any:
    """Return the JSON of a body, of a stream of events as one reply. Raises :class:`Damaged`."""
    text = text.removeprefix("\ufeff")
    if len(text) > _LARGEST:
        raise Damaged(f"the server's reply is too long to be one ({len(text)} characters)")
    try:
        return joined(text) if is_stream(text) else json.loads(text)
    except Exception as error:  # bad JSON, numbers of a million digits, brackets of a thousand levels, half a stream
        if text.lstrip().startswith("<"):
            said = f"the server answers with {words_of(text)[:120]!r}, not JSON; check base_url, it usually ends in /v1"
            raise Damaged(said) from None
        raise Damaged("the server's reply is not valid JSON", str(error) or type(error).__name__) from None


def generation(
    call: Call,
    reply: Any,
    route: str,
    dialect: Dialect,
    *,
    tags: Sequence[tuple[str, str]],
    prices: tuple[float, float] | None,
    cached_price: float | None = None,
) -> Generation:
    """Read a reply. Raises :class:`RequestFailed` if it is none, and :class:`Damaged` if it is not what the API promises.

    ``meta`` holds ``served_model``, the name that the server answers under, and ``cost``, what the call costs (None if it has
    a price and the server does not say what was used). ``reasoning_tokens`` and ``cached_tokens`` stand there as far as the
    server tells them.
    """
    name = call.model.name
    try:
        choice = _first(reply["choices"])
        message = choice.get("message") or choice.get("delta") or {"content": choice["text"]}
        text, said, refusal = _parts(message)
        finish = _word(choice.get("finish_reason"))
        ids, scores = _tokens(choice)
        used = used_by(reply)
        served = reply.get("model")
    except Exception as error:  # a server may answer anything
        raise Damaged(f"{name}: the server's reply is damaged ({type(error).__name__}: {error})") from None
    stated = stated_failure({"error": choice.get("error")})
    meaning = _meaning(finish)
    if meaning == "broken" or stated:
        why = f": {stated.said}" if stated else f" ({finish})"
        passing = stated is None or stated.passing
        raise RequestFailed(f"{name}: the server broke off while it wrote{why}", passing=passing)
    meta: dict[str, Any] = {}
    if not text and refusal:
        text, meta["refusal"] = refusal, True
    if meaning == "filtered":
        if not text:
            raise RequestFailed(f"{name}: the server's content filter withheld the reply")
        meta["content_filter"] = True
    if not text and (meaning == "tool" or message.get("tool_calls") or message.get("function_call")):
        raise RequestFailed(
            f"{name}: the server answers with the call of a tool, and none was offered; turn its tools off"
        )
    if not text and not said and meaning == "unknown":
        raise RequestFailed(f"{name}: the server broke off before it wrote anything ({finish})", passing=True)
    text = text.removeprefix(_echoed(call, dialect))
    stops = call.params.get("stop", ())
    text, cut = _cut(text, stops)
    if isinstance(served, str) and served:
        meta["served_model"] = _sound(served[:200])
    cost = used.cost(prices, cached_price)
    if cost is not None or prices is not None:
        meta["cost"] = cost
    if used.reasoning is not None:
        meta["reasoning_tokens"] = used.reasoning
    if used.cached:
        meta["cached_tokens"] = used.cached
    inner, answer = split(text, tags) if tags else ("", text)
    return Generation(
        text=answer,
        reasoning="\n\n".join(t for t in (said.strip(), inner) if t),
        finish_reason=_finish(choice, finish, bool(stops), cut),
        token_ids=ids,
        token_logprobs=scores,
        usage=used.usage,
        meta=meta,
    )


class Listener:
    """Hears a body that comes in parts, and tells the call's answer as far as it is certain. Damage is for who reads it all."""

    def __init__(
        self, call: Call, dialect: Dialect, tags: Sequence[tuple[str, str]], hide: Callable[[str], str] = str
    ) -> None:
        self._hide = hide
        self._call, self._tags, self._echoed = call, tags, _echoed(call, dialect)
        self._stream: Stream | None = Stream()

    def __call__(self, part: str) -> None:
        if self._stream is None or self._call.tell is None:
            return
        try:
            self._stream.take(part)
            message = self._stream.message
            text = _parts({"content": message["text"]} if "text" in message else message)[0]
        except Exception:  # a server may answer anything
            self._stream = None
            return
        stops = tuple(self._call.params.get("stop", ()))
        if text.startswith(self._echoed) and (
            answer := answer_so_far(text.removeprefix(self._echoed), stops, self._tags)
        ):
            self._call.tell(self._hide(answer))


def _echoed(call: Call, dialect: Dialect) -> str:
    """Return what a reply begins with that is none of it: a begun reply that the server repeats."""
    role, content = call.input["messages"][-1] if dialect.echoes and "messages" in call.input else ("", "")
    return str(content) if role == "assistant" else ""


def _first(choices: Any) -> Mapping[str, Any]:
    """Return the first of a reply's choices, by its index where they have one."""
    if not isinstance(choices, list) or not choices:
        raise ValueError("no choices")
    found = min(choices, key=lambda c: c["index"] if isinstance(c.get("index"), int) else 0)
    return dict(found)


def _parts(message: Any) -> tuple[str, str, str]:
    """Return what a message answers, thinks and refuses with. Content is a text, or a list of parts of several types."""
    answers, thoughts, refusals = [], [], []

    def take(part: Any) -> None:
        if isinstance(part, str):
            answers.append(part)
            return
        kind = str(part.get("type") or "text")
        if kind in ("text", "output_text"):
            answers.append(_text(part["text"]))
        elif kind in ("thinking", "reasoning", "reasoning_text", "reasoning.text"):
            thoughts.append(
                _text(next((part[k] for k in ("thinking", "reasoning", "text", "summary") if part.get(k)), None))
            )
        elif kind == "refusal":
            refusals.append(_text(part.get("refusal") or part.get("text")))
        elif isinstance(part.get("text"), str):  # a text of a kind that is new
            answers.append(part["text"])

    content = message.get("content")
    for part in content if isinstance(content, list) else [] if content is None else [content]:
        take(part)
    for name in ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks"):
        if not any(thoughts) and message.get(name):
            thoughts.append(_text(message[name]))
    if message.get("refusal"):
        refusals.append(_text(message["refusal"]))
    return _sound("".join(answers)), _sound("\n\n".join(t for t in thoughts if t)), _sound("".join(refusals))


def _text(value: Any) -> str:
    """Return the text of a part: itself, or what stands in the parts that it is made of."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(v) for v in value)
    if isinstance(value, Mapping):
        return _text(next((value[k] for k in ("text", "thinking", "content", "summary") if value.get(k)), None))
    raise TypeError("a text is not a string")


def _sound(text: str) -> str:
    """Return a text that can be written as UTF-8: halves of surrogate pairs are joined, lone ones replaced by U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Cut a reply before its first stop string: servers take few of them, and some leave them in the text."""
    places = [at for s in stops if s and (at := text.find(s)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _word(finish: Any) -> str:
    """Return a reason in small letters, without what some services add behind a colon."""
    return finish[:64].partition(":")[0].strip().lower() if isinstance(finish, str) else ""


def _finish(choice: Mapping[str, Any], finish: str, stops: bool, cut: bool) -> FinishReason:
    if cut:
        return "stop"
    meaning = _meaning(finish)
    if meaning in ("length", "stop"):
        return "length" if meaning == "length" else "stop"
    if meaning == "turn":
        return "eos"
    # vLLM and SGLang tell what stopped a reply: a string they were given, a token id, or nothing special
    for name in ("stop_reason", "matched_stop"):
        if name in choice:
            return "stop" if isinstance(choice[name], str) else "eos"
    return "stop" if stops else "eos"  # others do not tell the end of a turn from a stop string


def _tokens(choice: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """Return ids and log-probabilities of the emitted tokens; both empty if the server gave no log-probabilities.

    They come as rows (``content``, or a bare list) or as columns (``tokens``, ``token_logprobs``), on either route.
    """
    given = choice.get("logprobs") or {}
    rows = given if isinstance(given, list) else given.get("content")
    known = choice.get("token_ids")
    if rows:
        known = known or [r.get("id") for r in rows]
        names = [bytes(r["bytes"]) if r.get("bytes") is not None else _bytes(r["token"]) for r in rows]
        scores = [r["logprob"] for r in rows]
    elif isinstance(given, Mapping):
        names = [_bytes(t) for t in given.get("tokens") or []]
        scores = list(given.get("token_logprobs") or [])
        known = known or given.get("token_ids")
    else:
        names, scores = [], []
    if len(names) != len(scores):
        raise ValueError(f"{len(names)} tokens with {len(scores)} log-probabilities")
    scores = [_logprob(s) for s in scores]
    if not scores:
        return [], []
    if isinstance(known, list) and len(known) == len(scores) and all(type(i) is int and 0 <= i < 2**31 for i in known):
        return known, scores
    return [_stand_in(n) for n in names], scores


def _bytes(token: Any) -> bytes:
    return str(token).encode("utf-8", "surrogatepass")


def _logprob(value: Any) -> float:
    if isinstance(value, (bool, str)):
        raise TypeError("a log-probability is no number")
    number = float(value)
    if math.isnan(number) or number > 1:
        raise ValueError(f"a log-probability of {number}")
    # servers write -9999 or -inf for "so unlikely that we do not know"; rounding may end above 0
    return min(0.0, number) if math.isfinite(number) else -9999.0


def _stand_in(token: bytes) -> int:
    """A number that is equal for equal tokens, where the server names no ids."""
    return int.from_bytes(hashlib.sha256(token).digest()[:4], "big") >> 1
