"""From calls to requests, and from replies to results. Nothing here talks to anybody."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from moco_core.errors import ModelCallError
from moco_core.models import Call
from moco_core.types import FinishReason, Generation, Sampling, Usage
from moco_pool_openai.attempts import Damaged
from moco_pool_openai.dialects import Dialect
from moco_toolkit_checkpoints.reasoning import split

__all__ = ["embeddings", "estimate", "generation", "request_of", "rewards"]

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
    call: Call,
    model: str,
    dialect: Dialect,
    *,
    logprobs: bool,
    seeds: bool,
    budget_field: str,
    extra: Mapping[str, Any],
) -> tuple[str, dict[str, Any]]:
    """Return the route (``chat`` or ``text``) and the body of a generate call.

    Raises ModelCallError where the server's dialect has no word for what is asked.
    """
    sampling = Sampling.from_params(call.params)
    name = call.model.name
    body: dict[str, Any] = {"model": model, "temperature": sampling.temperature, "n": 1}
    more: dict[str, Any] = dict(extra)
    if sampling.stop:
        body["stop"] = list(sampling.stop[: dialect.stops])
    if not sampling.greedy:
        body["top_p"] = sampling.top_p
        if seeds and call.seed is not None:
            body["seed"] = call.seed % 2**31  # some servers keep 32 bits, and JSON readers 53
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
    if "text" in call.input:
        body |= {"prompt": call.input["text"], "max_tokens": sampling.max_new_tokens}
        if logprobs:
            body["logprobs"] = 1
        return "text", {**body, **more}
    messages = [{"role": role, "content": content} for role, content in call.input["messages"]]
    body |= {"messages": messages, budget_field: sampling.max_new_tokens}
    if logprobs:
        body["logprobs"] = True
    if messages and messages[-1]["role"] == "assistant":
        if dialect.continues == "no":
            raise ModelCallError(
                f"{name}: the server has no way to continue an assistant message; use a server that has one (vLLM, SGLang, "
                "llama.cpp), or state its dialect in the pool option dialect"
            )
        if dialect.continues == "flag":
            more = {"continue_final_message": True, "add_generation_prompt": False, **more}
    return "chat", {**body, **more}


def generation(
    call: Call,
    reply: Mapping[str, Any],
    route: str,
    dialect: Dialect,
    *,
    tags: Sequence[tuple[str, str]],
    prices: tuple[float, float] | None,
) -> Generation:
    """Read a reply. Raises :class:`Damaged` if it is not what the API promises."""
    try:
        choice = reply["choices"][0]
        message = choice["message"] if route == "chat" else {"content": choice["text"]}
        text = message.get("content") or ""
        said = message.get("reasoning_content") or message.get("reasoning") or ""
        finish = choice.get("finish_reason")
        usage = _usage(reply)
        ids, scores = _tokens(choice, route)
        if not isinstance(text, str) or not isinstance(said, str):
            raise TypeError("a text is not a string")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise Damaged(f"{call.model.name}: the server's reply is damaged ({type(error).__name__}: {error})") from error
    if finish == "content_filter" and not text:
        raise ModelCallError(f"{call.model.name}: the server's content filter withheld the reply")
    if dialect.echoes and route == "chat" and call.input["messages"][-1][0] == "assistant":
        text = text.removeprefix(call.input["messages"][-1][1])
    stops = Sampling.from_params(call.params).stop
    text, cut = _cut(text, stops)
    meta: dict[str, Any] = {}
    if finish == "content_filter":
        meta["content_filter"] = True
    if prices is not None:
        meta["cost"] = (usage.prompt_tokens * prices[0] + usage.completion_tokens * prices[1]) / 1e6
    inner, answer = split(text, tags) if tags else ("", text)
    return Generation(
        text=answer,
        reasoning="\n\n".join(t for t in (said.strip(), inner) if t),
        finish_reason=_finish(choice, finish, bool(stops), cut),
        token_ids=ids,
        token_logprobs=scores,
        usage=usage,
        meta=meta,
    )


def embeddings(call: Call, reply: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """Read the vectors of an embed call, in the order of its texts."""
    try:
        rows = sorted(reply["data"], key=lambda r: int(r["index"]))
        out = tuple(tuple(float(x) for x in r["embedding"]) for r in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{call.model.name}: the server's reply is damaged ({type(error).__name__}: {error})") from error
    if len(out) != len(call.input["texts"]):
        raise Damaged(f"{call.model.name}: {len(call.input['texts'])} texts were sent, {len(out)} vectors came back")
    return out


def rewards(call: Call, reply: Mapping[str, Any]) -> tuple[float, ...]:
    """Read the outputs of a classification head for the conversation of a reward call."""
    try:
        (row,) = reply["data"]
        out = tuple(float(x) for x in row["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{call.model.name}: the server's reply is damaged ({type(error).__name__}: {error})") from error
    if not out or not all(map(math.isfinite, out)):
        raise Damaged(f"{call.model.name}: the server's reply holds no reward: {list(out)!r}")
    return out


def _usage(reply: Mapping[str, Any]) -> Usage:
    usage = reply.get("usage") or {}
    return Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))


def _cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Cut a reply before its first stop string: servers take few of them, and some leave them in the text."""
    places = [at for s in stops if s and (at := text.find(s)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _finish(choice: Mapping[str, Any], finish: Any, stops: bool, cut: bool) -> FinishReason:
    if cut:
        return "stop"
    if finish == "length":
        return "length"
    # vLLM tells what stopped a reply: a string it was given, a token id, or nothing special
    if "stop_reason" in choice:
        return "stop" if isinstance(choice["stop_reason"], str) else "eos"
    return "stop" if stops else "eos"  # others do not tell the end of a turn from a stop string


def _tokens(choice: Mapping[str, Any], route: str) -> tuple[list[int], list[float]]:
    """Return ids and log-probabilities of the emitted tokens; both empty if the server gave no log-probabilities."""
    given = choice.get("logprobs") or {}
    known = choice.get("token_ids")
    if route == "chat" or "content" in given:  # llama.cpp writes them so on both routes, with ids
        rows = given.get("content") or []
        known = known or [r.get("id") for r in rows]
        names = [bytes(r["bytes"]) if r.get("bytes") is not None else str(r["token"]).encode() for r in rows]
        scores = [r["logprob"] for r in rows]
    else:
        names = [str(t).encode() for t in given.get("tokens") or []]
        scores = list(given.get("token_logprobs") or [])
    scores = [min(0.0, _number(s)) for s in scores]
    if not scores:
        return [], []
    if isinstance(known, list) and len(known) == len(scores) and all(isinstance(i, int) for i in known):
        return [int(i) for i in known], scores
    return [_stand_in(n) for n in names], scores


def _number(value: Any) -> float:
    number = float(value)
    # servers write -9999 or -inf for "so unlikely that we do not know"
    return number if math.isfinite(number) else -9999.0


def _stand_in(token: bytes) -> int:
    """A number that is equal for equal tokens, where the server names no ids."""
    return int.from_bytes(hashlib.sha256(token).digest()[:4], "big") >> 1
