"""The pool plugin: its options, and its models described without asking the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs

from moco_core.errors import ConfigError
from moco_core.models import Model, PoolSource
from moco_core.options import option
from moco_core.types import digest
from moco_pool_openai.engine import OpenAIEngine
from moco_pool_openai.memory import ServerMemory
from moco_pool_openai.server import Place, place_of
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS

__all__ = ["Entry", "OpenAIPool", "Options"]

_KNOWN = ("generate", "logprobs", "embed", "reward")


def _url(value: str) -> str | None:
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname):
        return f"expected an address such as http://127.0.0.1:8000/v1, got {_without_secrets(value)!r}"
    if parts.username or parts.password:
        return "expected an address without a password in it; name the variable that holds the key with api_key_env"
    return None


def _without_secrets(url: str) -> str:
    return url.rpartition("@")[2]


def _capabilities(value: Sequence[str]) -> str | None:
    wrong = [c for c in value if c not in _KNOWN]
    if wrong:
        return f"a server can give {', '.join(_KNOWN)}; got {wrong[0]!r}"
    return None if value else "expected at least one capability"


@attrs.frozen(kw_only=True)
class Entry:
    """One model of the pool."""

    model: str = option(help="the model's id on its server")
    name: str = option("", help="name within the pool; default: the last part of the id")
    description: str = option("", help="what it is good at, for methods that choose models by description")
    base_url: str = option("", help="instead of the pool's base_url, when models live on several servers", check=_url)
    api_key_env: str = option("", help="instead of the pool's api_key_env")
    capabilities: tuple[str, ...] | None = option(
        None,
        help="what it can do, of generate, logprobs, embed, reward; default: generate, and logprobs as found",
        check=_capabilities,
    )
    prices: tuple[float, float] | None = option(None, ge=0, help="money per million prompt and completion tokens")
    context: int | None = option(None, ge=1, help="context length in tokens, for methods that budget prompts")
    revision: str = option("", help="what the server runs under this id; change it to have everything asked again")
    extra_body: Mapping[str, Any] = option(factory=dict, help="further fields of each request, for this model only")


@attrs.frozen(kw_only=True)
class Options:
    """Options of the OpenAI-compatible pool."""

    models: tuple[str | Entry, ...] = option(help="the models in order: ids, or mappings with details")
    base_url: str = option(
        "", help="address of the API; default: $OPENAI_BASE_URL, else the hosted OpenAI API", check=_url
    )
    api_key_env: str = option("OPENAI_API_KEY", help="environment variable that holds the key")
    api_key: str = option("", help="the key itself; prefer api_key_env (this is masked wherever it is written)")
    server: str = option("", help="name that stands for the server in the cache of calls; default: its address")
    dialect: Literal["auto", "openai", "vllm", "sglang", "llamacpp"] = option(
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
    extra_body: Mapping[str, Any] = option(factory=dict, help="further fields of every request")
    max_in_flight: int = option(64, ge=1, help="requests under way at once, all models together")
    rpm: float | None = option(None, ge=1, help="requests per minute and server; default: no limit")
    tpm: float | None = option(None, ge=1, help="tokens per minute and server; default: no limit")
    retries: int = option(
        8, ge=0, help="further attempts after 408, 409, 429, 5xx, a lost connection or a damaged reply"
    )
    backoff: tuple[float, float] = option((0.5, 30.0), gt=0, help="shortest and longest wait between attempts, seconds")
    timeout: float = option(120.0, gt=0, help="seconds that a server may stay silent within one attempt")
    deadline: float = option(900.0, gt=0, help="seconds for one call, all attempts together")
    budget: float | None = option(None, gt=0, help="money that this pool may spend; needs prices")
    budget_tokens: int | None = option(None, gt=0, help="prompt and completion tokens that this pool may use")
    check: bool = option(True, help="ask the server for its models before the first call")
    cache: str = option("", help="folder that remembers what servers can do; default: the user's cache folder")


class OpenAIPool(PoolSource[Options]):
    """Models behind any OpenAI-compatible server: hosted services, vLLM, SGLang, llama.cpp, Ollama."""

    Options = Options

    @cached_property
    def engine(self) -> OpenAIEngine:
        return OpenAIEngine(self.options, ServerMemory(self.options.cache))

    def models(self) -> Sequence[Model]:
        """Describe the models in order. No server is asked: what it can do is declared by the options or remembered.

        Raises ConfigError listing every entry that cannot be used.
        """
        options = self.options
        if not options.models:
            raise ConfigError("models: empty; name at least one model of the server")
        entries = [Entry(model=m) if isinstance(m, str) else m for m in options.models]
        problems = [
            f"models[{i}].prices: missing; a budget in money needs the prices of every model"
            for i, e in enumerate(entries)
            if options.budget is not None and e.prices is None
        ]
        problems += [
            f"models[{i}].model: empty; name a model of the server" for i, e in enumerate(entries) if not e.model
        ]
        if problems:
            raise ConfigError(problems)
        copies: Counter[str] = Counter()
        out = []
        for entry, name in zip(entries, _names(entries), strict=True):
            place = place_of(options, entry)
            fingerprint = self._fingerprint(entry, place)
            out.append(
                Model(
                    name=name,
                    fingerprint=fingerprint,
                    capabilities=self._declared(entry, place),
                    engine=self.engine,
                    description=entry.description,
                    tokenizer=digest("remote tokenizer", fingerprint),  # unknown: equal for copies only
                    architecture=digest("remote architecture", fingerprint),
                    context_length=entry.context,
                    lane=place.base_url,
                    copy=copies[fingerprint],
                    prices=entry.prices,
                    info={"entry": entry, "place": place},
                )
            )
            copies[fingerprint] += 1
        self.engine.models = out
        return tuple(out)

    def _declared(self, entry: Entry, place: Place) -> frozenset[str]:
        if entry.capabilities is not None:
            return frozenset(entry.capabilities)
        found = {"generate"}
        wanted = self.options.logprobs
        known = self.engine.memory.recall(place.base_url, entry.model).get("logprobs")
        if wanted == "yes" or (wanted == "auto" and known):
            found.add("logprobs")
        return frozenset(found)

    def _fingerprint(self, entry: Entry, place: Place) -> str:
        """Everything of a configuration that decides a reply. Keys, limits and prices do not."""
        options = self.options
        asked = "none" if options.logprobs == "no" else "wanted"
        if entry.capabilities is not None:
            asked = "wanted" if "logprobs" in entry.capabilities else "none"
        extra = {**options.extra_body, **entry.extra_body}
        tags = [list(t) for t in options.reasoning_tags]
        # a dialect that is found out is a property of the server; one that is stated may change what is sent
        stated = "" if options.dialect == "auto" else options.dialect
        where = options.server or place.base_url
        return digest("openai", where, entry.model, entry.revision, stated, asked, extra, tags, options.seeds)


def _names(entries: Sequence[Entry]) -> list[str]:
    """Names within the pool: given ones are kept, default ones are the last part of the id, numbered where equal."""
    wanted = [e.name or e.model.rstrip("/").rpartition("/")[2] for e in entries]
    counts = Counter(wanted)
    used = {e.name for e in entries if e.name}
    out = []
    for entry, name in zip(entries, wanted, strict=True):
        candidate, number = name, 1
        while not entry.name and (candidate in used or (counts[name] > 1 and number == 1)):
            candidate, number = f"{name}-{number}", number + 1
        used.add(candidate)
        out.append(candidate)
    return out
