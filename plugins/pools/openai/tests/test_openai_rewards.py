"""Rewards behind a server: what is asked, what is read, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from moco_core.errors import CapabilityError, ModelCallError
from moco_core.models import Call
from moco_core.options import build
from moco_core.types import Message
from moco_pool_openai.pool import OpenAIPool, Options
from moco_pool_openai.testing import StubServer
from moco_pool_openai.wire import rewards
from moco_toolkit_authoring import open_state

TALK = [Message("system", "Be kind."), Message("user", "Hello"), Message("assistant", "Hi there")]


def asked(url: str, *conversations: list[Message], **entry: Any) -> list[tuple[float, ...]]:
    """Return the reward of each conversation."""
    models = [{"model": "judge", "capabilities": ["reward"], **entry}]
    source = OpenAIPool(build(Options, {"models": models, "base_url": url}))

    async def work() -> list[tuple[float, ...]]:
        async with open_state() as state:
            context = state.context("metric")
            return await asyncio.gather(*(context.reward(source.models()[0], c) for c in conversations))

    return asyncio.run(work())


def test_the_raw_outputs_for_the_whole_conversation_are_asked_for() -> None:
    talks = [TALK[: n + 1] for n in range(3)]
    with StubServer(models=("judge",)) as server:
        found = asked(server.url, *talks, extra_body={"priority": 1})
    assert len(set(found)) == 3
    for request, values in zip(sorted(server.requests, key=lambda r: len(r.body["messages"])), found, strict=True):
        said = "\x1f".join(f"{m['role']}: {m['content']}" for m in request.body["messages"])
        assert values == (int(hashlib.sha256(said.encode()).hexdigest()[:4], 16) / 6553.6 - 5,)
        assert request.path == "/pooling" and request.body["priority"] == 1  # beside /v1, where vLLM has it
        assert request.body["use_activation"] is request.body["add_generation_prompt"] is False


@pytest.mark.parametrize(
    "reply",
    [{}, {"data": None}, {"data": []}, {"data": [{}]}, {"data": [{"data": ["x"]}]}, {"data": [{"data": []}]},
     {"data": [{"data": [float("nan")]}]}, {"data": [{"data": [1.0]}, {"data": [2.0]}]}, {"data": [{"data": [[1.0]]}]}],
)  # fmt: skip
def test_a_damaged_reply_is_one_line(reply: dict[str, Any]) -> None:
    model = OpenAIPool(build(Options, {"models": ["judge"], "base_url": "http://127.0.0.1:1/v1"})).models()[0]
    with pytest.raises(ModelCallError, match=r"^judge: the server's reply (is damaged|holds no reward)") as caught:
        rewards(Call(model, "reward", {"messages": []}, {}), reply)
    assert "\n" not in str(caught.value)


def test_a_model_that_was_not_declared_so_gives_none() -> None:
    with StubServer(models=("judge",)) as server, pytest.raises(CapabilityError):
        asked(server.url, TALK, capabilities=["generate"])
