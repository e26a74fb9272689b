"""The pool plugin: its models, described without asking the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from moco_core.errors import ConfigError
from moco_core.models import Model, PoolSource
from moco_core.types import digest
from moco_pool_openai.dialects import HOSTS
from moco_pool_openai.endpoint import Endpoint, endpoint_of, problems_with_credentials
from moco_pool_openai.engine import OpenAIEngine
from moco_pool_openai.memory import ServerMemory
from moco_pool_openai.options import Entry, Options, entries_of

__all__ = ["Entry", "OpenAIPool", "Options"]

_READING = 3
"""Version of how replies are read. Those that were read otherwise may be wrong, and are asked for again."""


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
        entries = entries_of(options)
        problems = [
            f"models[{i}].prices: missing; a budget in money needs the prices of every model"
            for i, e in enumerate(entries)
            if options.budget is not None and e.prices is None
        ]
        problems += [
            f"models[{i}].model: empty; name a model of the server" for i, e in enumerate(entries) if not e.model
        ]
        problems += problems_with_credentials(options)
        if problems:
            raise ConfigError(problems)
        copies: Counter[str] = Counter()
        out = []
        for entry, name in zip(entries, _names(entries), strict=True):
            endpoint = endpoint_of(options, entry)
            fingerprint = self._fingerprint(entry, endpoint)
            out.append(
                Model(
                    name=name,
                    fingerprint=fingerprint,
                    capabilities=self._declared(entry, endpoint),
                    engine=self.engine,
                    description=entry.description,
                    tokenizer=digest("remote tokenizer", fingerprint),  # unknown: equal for copies only
                    architecture=digest("remote architecture", fingerprint),
                    context_length=entry.context,
                    device_group=endpoint.base_url,
                    copy=copies[fingerprint],
                    prices=entry.prices,
                    info={"entry": entry, "endpoint": endpoint},
                )
            )
            copies[fingerprint] += 1
        self.engine.models = out
        return tuple(out)

    def _declared(self, entry: Entry, endpoint: Endpoint) -> frozenset[str]:
        if entry.capabilities is not None:
            return frozenset(entry.capabilities)
        found = {"generate"}
        wanted = self.options.logprobs
        known = self.engine.memory.recall(endpoint.address, entry.model).get("logprobs")
        if wanted == "yes" or (wanted == "auto" and known):
            found.add("logprobs")
        return frozenset(found)

    def _fingerprint(self, entry: Entry, endpoint: Endpoint) -> str:
        """Return the digest of everything in a configuration that decides a reply. Keys, limits and prices do not."""
        options = self.options
        asked = "none" if options.logprobs == "no" else "wanted"
        if entry.capabilities is not None:
            asked = "wanted" if "logprobs" in entry.capabilities else "none"
        # a dialect that is found out is a property of the server; one that is stated may change what is sent
        stated: str = "" if options.dialect == "auto" else options.dialect
        if not stated and not options.check:
            stated = HOSTS.get(endpoint.host, "openai")
        sent = {
            "extra": {**options.extra_body, **entry.extra_body},
            "omit": sorted({*options.omit, *entry.omit}),
            **({"stream": True} if options.stream else {}),  # some servers trim what they do not stream
            "template": dict(entry.template),
            "headers": dict(options.headers),
            "budget": options.max_tokens_field,
            "seeds": options.seeds,
        }
        tags = [list(t) for t in options.reasoning_tags]
        where = options.server or endpoint.address
        return digest("openai", _READING, where, entry.model, entry.revision, stated, asked, sent, tags)


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
