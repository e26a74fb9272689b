"""From calls to requests, and from replies to vectors and rewards. Nothing here talks to anybody."""

from __future__ import annotations

import array
import base64
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from moco_core.errors import ModelCallError
from moco_core.models import Call
from moco_core.types import Sampling
from moco_pool_openai.dialects import Dialect
from moco_pool_openai.failures import Damaged
from moco_pool_openai.options import Entry, Options

__all__ = ["embedding_request", "embeddings", "estimate", "request_of", "reward_request", "rewards"]

_CHARACTERS_PER_TOKEN = 3.0


def estimate(call: Call) -> tuple[float, float]:
    """Return (prompt tokens, most completion tokens) of a call, for pacing and budgets. The prompt's are a guess."""
    given = call.input
    if "texts" in given:
        return sum(len(t) for t in given["texts"]) / _CHARACTERS_PER_TOKEN + 1, 0.0
    texts = [given["text"]] if "text" in given else [content for _, content in given["messages"]]
    prompt = sum(len(t) / _CHARACTERS_PER_TOKEN + 4 for t in texts)
    return prompt, float(call.params.get("max_new_tokens", 0))


def request_of(
    call: Call, entry: Entry, options: Options, dialect: Dialect, *, logprobs: bool
) -> tuple[str, dict[str, Any]]:
    """Return the route (``chat`` or ``text``) and the body of a generate call.

    Raises ModelCallError where the server's dialect has no word for what is asked.
    """
    sampling = Sampling.from_params(call.params)
    name = call.model.name
    body: dict[str, Any] = {"model": entry.model, "temperature": sampling.temperature}
    more: dict[str, Any] = {**options.extra_body, **entry.extra_body}
    if sampling.stop:
        body["stop"] = list(sampling.stop[: dialect.stops])
    if not sampling.greedy:
        if sampling.top_p < 1 or dialect.filters:  # 1 is off, and some services refuse it beside a temperature
            body["top_p"] = sampling.top_p
        if options.seeds and call.seed is not None:
            body[dialect.seed] = call.seed % 2**31  # some servers keep 32 bits, and JSON readers 53
    filters = {"top_k": sampling.top_k or -1, "min_p": sampling.min_p}
    if dialect.filters:
        more = {**filters, "repetition_penalty": 1.0, **more}
    elif not sampling.greedy and (sampling.top_k or sampling.min_p):
        raise ModelCallError(
            f"{name}: the server takes neither top_k nor min_p; leave them at 0, or state its dialect in the pool option "
            "dialect"
        )
    if dialect.token_ids:
        more = {"return_token_ids": True, **more}
    if options.stream or call.tell is not None:
        more = {"stream": True, "stream_options": {"include_usage": True}, **more}
    if "text" in call.input:
        body |= {"prompt": call.input["text"], "max_tokens": sampling.max_new_tokens}
        if logprobs:
            body["logprobs"] = 1
        return "text", _without({**body, **more}, options, entry)
    messages = [{"role": role, "content": content} for role, content in call.input["messages"]]
    body |= {"messages": messages, options.max_tokens_field: sampling.max_new_tokens}
    if logprobs:
        body["logprobs"] = True
    if entry.template:
        body["chat_template_kwargs"] = dict(entry.template)
    if messages and messages[-1]["role"] == "assistant":
        if dialect.continues == "no":
            raise ModelCallError(
                f"{name}: the server has no way to continue an assistant message; use a server that has one (vLLM, SGLang, "
                "llama.cpp), or state its dialect in the pool option dialect"
            )
        if dialect.continues == "flag":
            more = {"continue_final_message": True, "add_generation_prompt": False, **more}
        if dialect.continues == "mark":
            messages[-1]["prefix"] = True
    return "chat", _without({**body, **more}, options, entry)


def embedding_request(call: Call, entry: Entry, options: Options) -> dict[str, Any]:
    """Return the body of an embed call."""
    body = {"model": entry.model, "input": list(call.input["texts"]), "encoding_format": "float"}
    return _without({**body, **options.extra_body, **entry.extra_body}, options, entry)


def reward_request(call: Call, entry: Entry, options: Options) -> dict[str, Any]:
    """Return the body of a reward call, as vLLM's route for raw outputs of a classification head takes it."""
    body = {
        "model": entry.model,
        "messages": [{"role": role, "content": content} for role, content in call.input["messages"]],
        "task": "classify",
        "use_activation": False,
        "add_generation_prompt": False,
    }
    return _without({**body, **options.extra_body, **entry.extra_body}, options, entry)


def _without(body: Mapping[str, Any], options: Options, entry: Entry) -> dict[str, Any]:
    return {k: v for k, v in body.items() if k not in options.omit and k not in entry.omit}


def embeddings(call: Call, reply: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """Read the vectors of an embed call, in the order of its texts."""
    texts, name = call.input["texts"], call.model.name
    try:
        rows = list(reply["data"])
        order = [place if row.get("index") is None else int(row["index"]) for place, row in enumerate(rows)]
        found = {place: _vector(row["embedding"]) for place, row in zip(order, rows, strict=True)}
    except Exception as error:  # a server may answer anything
        raise Damaged(f"{name}: the server's reply is damaged ({type(error).__name__}: {error})") from None
    if len(rows) != len(texts) or sorted(found) != list(range(len(texts))):
        raise Damaged(f"{name}: {len(texts)} texts were sent, {len(rows)} vectors came back")
    out = tuple(found[i] for i in range(len(texts)))
    if len({len(v) for v in out}) > 1 or not all(out):
        raise Damaged(f"{name}: the server's reply is damaged (vectors of different length)")
    return out


def _vector(given: Any) -> tuple[float, ...]:
    if isinstance(given, str):  # a server that does not hear encoding_format: little-endian floats of 32 bits in base64
        packed = array.array("f", base64.b64decode(given, validate=True))
        if sys.byteorder == "big":
            packed.byteswap()
        given = packed.tolist()
    return _numbers(given)


def _numbers(given: Sequence[Any]) -> tuple[float, ...]:
    if any(isinstance(x, (bool, str)) for x in given):
        raise TypeError("a text among numbers")
    out = tuple(float(x) for x in given)
    if not all(map(math.isfinite, out)):
        raise ValueError("a number that is not finite")
    return out


def rewards(call: Call, reply: Mapping[str, Any]) -> tuple[float, ...]:
    """Read the outputs of a classification head for the conversation of a reward call."""
    try:
        (row,) = reply["data"]
        out = _numbers(row["data"])
    except Exception as error:  # a server may answer anything
        raise Damaged(f"{call.model.name}: the server's reply is damaged ({type(error).__name__}: {error})") from None
    if not out:
        raise Damaged(f"{call.model.name}: the server's reply holds no reward")
    return out
