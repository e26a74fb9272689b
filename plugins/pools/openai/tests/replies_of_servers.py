"""A reply as a server sends it, and how it is read."""

from __future__ import annotations

from typing import Any

from moco_core.models import Call
from moco_core.types import Generation, Sampling
from moco_pool_openai.dialects import DIALECTS
from moco_pool_openai.pool import OpenAIPool, Options
from moco_pool_openai.reading import generation

(MODEL,) = OpenAIPool(Options(models=("m",), base_url="http://127.0.0.1:1/v1")).models()


def read(reply: Any, route: str = "chat", **how: Any) -> Generation:
    call = Call(
        MODEL, "generate", {"messages": [["user", "a"]]}, Sampling(max_new_tokens=8, stop=how.pop("stop", ())).params()
    )
    return generation(
        call, reply, route, DIALECTS["openai"], tags=(("<think>", "</think>"),), **{"prices": None, **how}
    )


def said(message: Any, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}]}


NAN, DEEP, HUGE = float("nan"), "[" * 100_000, "9" * 5000
