"""The options of the pool, and of each model in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from moco_core import Secret, option
from moco_pool_openai.checks import address_problem, header_problem, named_variable_problem, public_problem
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS

__all__ = ["NEEDED_FIELDS", "Entry", "Options", "entries_of"]

_KNOWN = ("generate", "logprobs", "embed", "reward")
NEEDED_FIELDS = frozenset({"model", "messages", "prompt", "input"})
"""Fields that no request goes without."""


def _capabilities(value: Sequence[str]) -> str | None:
    wrong = [c for c in value if c not in _KNOWN]
    if wrong:
        return f"a server can give {', '.join(_KNOWN)}; got {wrong[0]!r}"
    return None if value else "expected at least one capability"


def _left_out(value: Sequence[str]) -> str | None:
    needed = [name for name in value if name in NEEDED_FIELDS]
    return f"no request goes without {needed[0]!r}" if needed else None


@attrs.frozen(kw_only=True)
class Entry:
    """One model of the pool."""

    model: str = option(help="the model's id on its server")
    name: str = option("", help="name within the pool; default: the last part of the id")
    description: str = option("", help="what it is good at, for methods that choose models by description")
    base_url: str = option(
        "", help="instead of the pool's base_url, when models live on several servers", check=address_problem
    )
    api_key_env: str = option("", help="instead of the pool's api_key_env", check=named_variable_problem)
    capabilities: tuple[str, ...] | None = option(
        None,
        help="what it can do, of generate, logprobs, embed, reward; default: generate, and logprobs as found",
        check=_capabilities,
    )
    prices: tuple[float, float] | None = option(None, ge=0, help="money per million prompt and completion tokens")
    cached_price: float | None = option(
        None, ge=0, help="money per million prompt tokens that the service had in its own cache; default: the prompt's"
    )
    context: int | None = option(None, ge=1, help="context length in tokens, for methods that budget prompts")
    revision: str = option("", help="what the server runs under this id; change it to have everything asked again")
    template: Mapping[str, Any] = option(
        factory=dict, help="arguments of the chat template, such as {enable_thinking: false}", check=public_problem
    )
    omit: tuple[str, ...] = option(
        (), help="fields left out of this model's requests, beside the pool's", check=_left_out
    )
    extra_body: Mapping[str, Any] = option(
        factory=dict, help="further fields of each request, for this model only", check=public_problem
    )


@attrs.frozen(kw_only=True)
class Options:
    """Options of the OpenAI-compatible pool."""

    models: tuple[str | Entry, ...] = option(help="the models in order: ids, or mappings with details")
    base_url: str = option(
        "", help="address of the API; default: $OPENAI_BASE_URL, else the hosted OpenAI API", check=address_problem
    )
    api_key_env: str = option(
        "", help="environment variable that holds the key; default: OPENAI_API_KEY", check=named_variable_problem
    )
    api_key: Secret | None = option(None, help="the key itself; prefer api_key_env (this is shown and kept nowhere)")
    headers: Mapping[str, str] = option(
        factory=dict, help="further headers; $NAME stands for the environment variable NAME", check=header_problem
    )
    server: str = option("", help="name that stands for the server in the cache of calls; default: its address")
    dialect: Literal["auto", "openai", "vllm", "sglang", "llamacpp", "mistral"] = option(
        "auto", help="what the server takes beyond the OpenAI API; auto: as it introduces itself in its list of models"
    )
    logprobs: Literal["auto", "yes", "no"] = option(
        "auto", help="log-probabilities: auto asks once and remembers; yes declares and requires them; no never asks"
    )
    seeds: bool = option(True, help="send a seed with sampled calls")
    reasoning_tags: tuple[tuple[str, str], ...] = option(
        DEFAULT_TAGS, help="tags of reasoning blocks left in the text; an empty list leaves replies as they are"
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = option(
        "max_tokens", help="name of the reply budget in chat requests; newer hosted models want max_completion_tokens"
    )
    omit: tuple[str, ...] = option(
        (), help="fields that the service refuses, left out of every request, such as [top_p]", check=_left_out
    )
    extra_body: Mapping[str, Any] = option(factory=dict, help="further fields of every request", check=public_problem)
    stream: bool = option(False, help="have replies sent piece by piece, for services that know no other way")
    max_in_flight: int = option(64, ge=1, help="requests under way at once, all models together")
    rpm: float | None = option(None, ge=1, help="requests per minute and server; default: no limit")
    tpm: float | None = option(None, ge=1, help="tokens per minute and server; default: no limit")
    retries: int = option(
        8, ge=0, help="further attempts after 408, 409, 429, 5xx, a lost connection or a damaged reply"
    )
    backoff: tuple[float, float] = option((0.5, 30.0), gt=0, help="shortest and longest wait between attempts, seconds")
    timeout: float = option(120.0, gt=0, help="seconds that a server may stay silent within one attempt")
    deadline: float = option(900.0, gt=0, help="seconds for one call, all attempts and the server's waits together")
    budget: float | None = option(None, gt=0, help="money that this pool may spend; needs prices")
    budget_tokens: int | None = option(None, gt=0, help="prompt and completion tokens that this pool may use")
    check: bool = option(True, help="ask the server for its models before the first call")
    cache: str = option(
        "", holds="path", help="folder that remembers what servers can do; default: the user's cache folder"
    )


def entries_of(options: Options) -> list[Entry]:
    """Return the models of a pool, each with all its details."""
    return [Entry(model=m) if isinstance(m, str) else m for m in options.models]
