"""What the tests of this pool share: a pool at a stub server, and asking it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from moco_core.errors import ConfigError, ModelCallError
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.types import Sampling
from moco_pool_openai.pool import OpenAIPool, Options
from moco_pool_openai.testing import Fault, StubServer
from moco_toolkit_authoring import open_state

KEY = "sk-test-4242424242"

SURROUNDINGS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
"""Variables that must not reach a test."""


def pool(stub: StubServer, models: Any = ("alpha",), **options: Any) -> OpenAIPool:
    given = {"models": list(models), "base_url": stub.url, "backoff": [0.001, 0.01], **options}
    return OpenAIPool(build(Options, given))


def ask(source: OpenAIPool, *prompts: Any, model: int = 0, cache: Cache | None = None, **how: Any) -> list[Any]:
    """Ask all prompts together; errors come back as values."""
    raw = how.pop("raw", False)
    sampling = Sampling(**{"max_new_tokens": 32, **how})

    async def work() -> list[Any]:
        async with open_state(sampling=sampling, cache=cache) as state:
            context = state.context("respond")
            chosen = source.models()[model]
            return await context.gather(
                (context.generate(chosen, p, raw=raw) for p in prompts), tolerate=(ModelCallError, ConfigError)
            )

    return asyncio.run(work())


def says(body: Any, status: int = 200, **headers: str) -> Fault:
    """Return the fault that answers with this JSON, or this text."""
    return Fault(status=status, headers=headers, body=body if isinstance(body, str) else json.dumps(body))


def answered(source: OpenAIPool, stub: StubServer, body: Any, status: int = 200, **how: Any) -> Any:
    """Ask one question that is answered so."""
    stub.fault = lambda request: says(body, status)
    (found,) = ask(source, "a", **how)
    return found
