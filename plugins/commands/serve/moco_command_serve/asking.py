"""Reading requests: what is asked, with which settings; what cannot be honoured is refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_command_serve.limits import Limits, Refused
from moco_core import ConfigError, Message, Question, Sampling
from moco_core.errors import suggest
from moco_core.types import ANSWER_KINDS

__all__ = ["Ask", "read_ask"]

_DECODING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "stop": "stop",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
}
"""Parameters of a request, and the setting of a system that each is."""

_SILENT = ("user", "metadata", "safety_identifier", "prompt_cache_key", "parallel_tool_calls", "service_tier")
"""Parameters that say nothing about the reply."""

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}
"""Parameters that no method honours, and the values at which they ask for nothing."""

_OWN = ("answer_format", "choices", "id", "kind", "trace")
_ROLES = ("system", "developer", "user", "assistant")


@attrs.frozen(kw_only=True)
class Ask:
    """One request. ``text`` is set instead of ``question`` where raw text is to be continued.

    ``decoding`` holds the settings of :class:`~moco_core.Sampling` that were given, under the parameters' names in ``named``.
    """

    model: str
    question: Question
    text: str | None = None
    decoding: Mapping[str, Any] = attrs.field(factory=dict)
    named: Mapping[str, str] = attrs.field(factory=dict)
    seed: int | None = None
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    trace: bool = False

    def sampling(self, own: Sampling) -> Sampling:
        """Return how to decode: as the system does, but for what was given. Raises Refused."""
        out = own
        for setting, value in self.decoding.items():
            try:
                out = attrs.evolve(out, **{setting: value})
            except ConfigError:
                name = self.named[setting]
                raise Refused(400, f"{name}: {value!r} is out of range", param=name) from None
        return out


def read_ask(body: Mapping[str, Any], *, chat: bool, kind: str, limits: Limits) -> Ask:
    """Read the body of a completion request; ``kind`` is how answers are read unless it says so. Raises Refused."""
    asked = "messages" if chat else "prompt"
    known = {*_DECODING, *_SILENT, *_NEUTRAL, "model", asked, "seed", "n", "stream", "stream_options", "moco"}
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name not in known:
            raise Refused(400, f"{name}: unknown parameter{suggest(name, known)}", param=name)
        if name in _NEUTRAL and value not in _NEUTRAL[name]:
            raise Refused(400, f"{name}: this system cannot honour it; leave it out", param=name, code="unsupported")
    own = _of(given, "moco", dict, {})
    for name in own:
        if name not in _OWN:
            raise Refused(400, f"moco.{name}: unknown key{suggest(name, _OWN)}", param="moco")
    if asked not in given:
        raise Refused(400, f"{asked}: missing", param=asked)
    options = _of(given, "stream_options", dict, {})
    n = _of(given, "n", int, 1)
    if not 1 <= n <= limits.choices:
        raise Refused(400, f"n: expected 1 to {limits.choices}, got {n}", param="n")
    decoding, named = _decoding(given)
    return Ask(
        model=_of(given, "model", str, ""),
        question=_question(given["messages"], own, kind) if chat else Question(id="ask-0", prompt=""),
        text=None if chat else _prompt(given["prompt"]),
        decoding=decoding,
        named=named,
        seed=_of(given, "seed", int, None),
        n=n,
        stream=_of(given, "stream", bool, False),
        include_usage=_of(options, "include_usage", bool, False),
        trace=_of(own, "trace", bool, False),
    )


def _of(given: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = given.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise Refused(400, f"{name}: expected {kind.__name__}, got {type(value).__name__}", param=name)
    return value


def _decoding(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    decoding: dict[str, Any] = {}
    named: dict[str, str] = {}
    for name, setting in _DECODING.items():
        if name not in given:
            continue
        value = given[name]
        whole = setting in ("top_k", "max_new_tokens")
        if name == "stop":
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, (list, tuple)) or not all(isinstance(s, str) and s for s in value):
                raise Refused(400, "stop: expected a text or a list of texts, none of them empty", param=name)
            value = tuple(value)
        elif isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            wanted = "a whole number" if whole else "a number"
            raise Refused(400, f"{name}: expected {wanted}, got {type(value).__name__}", param=name)
        if setting == "top_k":
            value = max(value, 0)  # -1 is another way of switching it off
        decoding[setting] = value if whole or name == "stop" else float(value)
        named[setting] = name
    return decoding, named


def _prompt(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise Refused(400, "prompt: expected one text", param="prompt")
    return value


def _question(messages: Any, own: Mapping[str, Any], kind: str) -> Question:
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages: expected a list of at least one message", param="messages")
    turns = [_turn(message, f"messages[{i}]") for i, message in enumerate(messages)]
    system = ""
    while turns and turns[0].role == "system":  # several are one text
        system = f"{system}\n\n{turns[0].content}" if system else turns[0].content
        turns.pop(0)
    if not turns or turns[-1].role != "user":
        raise Refused(400, "messages: the last one has to be the user's", param="messages")
    choices = _of(own, "choices", list, [])
    if not all(isinstance(c, str) for c in choices):
        raise Refused(400, "moco.choices: expected a list of texts", param="moco")
    read = _of(own, "kind", str, "choice" if choices else kind)
    if read not in ANSWER_KINDS:
        raise Refused(400, f"moco.kind: expected one of {', '.join(ANSWER_KINDS)}", param="moco")
    return Question(
        id=_of(own, "id", str, "ask-0"),
        prompt=turns[-1].content,
        choices=tuple(choices),
        answer_kind=read,
        answer_format=_of(own, "answer_format", str, ""),
        system=system,
        history=tuple(turns[:-1]),
    )


def _turn(message: Any, where: str) -> Message:
    if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
        said = message.get("role") if isinstance(message, Mapping) else None
        tools = f"; {said} messages need tools, which this system cannot use" if said in ("tool", "function") else ""
        raise Refused(400, f"{where}.role: expected one of {', '.join(_ROLES)}{tools}", param="messages")
    if message.get("tool_calls") or message.get("function_call"):
        raise Refused(400, f"{where}.tool_calls: this system cannot use tools", param="messages", code="unsupported")
    role = "system" if message["role"] == "developer" else str(message["role"])
    return Message(role, _text(message.get("content"), f"{where}.content", empty=role == "assistant"))


def _text(content: Any, where: str, *, empty: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None and empty:
        return ""
    if not isinstance(content, Sequence):
        raise Refused(400, f"{where}: expected text", param="messages")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            what = {"image_url": "images", "input_audio": "sound", "file": "files"}.get(str(kind), "such parts")
            raise Refused(400, f"{where}: {what} are not understood, only text", param="messages", code="unsupported")
        texts.append(part["text"])
    return "".join(texts)
