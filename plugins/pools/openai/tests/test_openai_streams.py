"""Replies that are read along: told as the server sends them, and the same as when they are had at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from openai_asking import SURROUNDINGS, pool, says

from moco_core.errors import ModelCallError
from moco_core.models import Call
from moco_core.secrets import Secret
from moco_core.types import Generation, Message, Question, Sampling
from moco_pool_openai.dialects import DIALECTS
from moco_pool_openai.reading import Listener, parsed
from moco_pool_openai.server import Server
from moco_pool_openai.testing import Fault, Request, StubServer
from moco_toolkit_authoring import open_state

TAGS = (("<think>", "</think>"),)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer(pace=0.004) as stub:
        yield stub


def read_along(source: Any, prompt: Any = "a", *, raw: bool = False, **sampling: Any) -> tuple[Any, list[str], Any]:
    """Return a reply, what was told before it was whole, and the same reply had at once."""
    told: list[str] = []

    async def ask(listen: bool) -> Any:
        async with open_state(sampling=Sampling(**sampling)) as state:
            heard = attrs.evolve(state, on_reply=told.append if listen else None)
            context = heard.context("respond", Question(id="q", prompt="q"))
            try:
                return await context.generate(source.models()[0], prompt, raw=raw, tell=context.tell)
            except ModelCallError as error:
                return error

    return asyncio.run(ask(True)), told, asyncio.run(ask(False))


def grows(told: Sequence[str], end: str) -> bool:
    return all(later.startswith(earlier) for earlier, later in zip(told, [*told[1:], end], strict=True))


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9}, {"stop": ("answer",)}, {"max_new_tokens": 5}], ids=str)
@pytest.mark.parametrize("raw", [False, True])
def test_a_reply_is_told_as_it_is_sent_and_is_the_one_that_comes_at_once(
    server: StubServer, settings: dict[str, Any], raw: bool
) -> None:
    found, told, whole = read_along(pool(server), raw=raw, **settings)
    assert found == whole and found.token_logprobs and found.usage.completion_tokens == len(found.token_ids)
    assert grows(told, found.text) and len(set(told)) > 2
    assert [bool(r.body.get("stream")) for r in server.requests[-2:]] == [True, False]


def test_what_a_model_thinks_is_not_told(server: StubServer) -> None:
    server.reply = lambda request: "<think> 3 + 4 is 7 </think> It is 7 , I say , seven ."
    found, told, whole = read_along(pool(server, logprobs="no"))
    assert found == whole and found.reasoning == "3 + 4 is 7"
    assert grows(told, found.text) and len(set(told)) > 4
    server.reasoning, server.reply = "Hm.", lambda request: "It is 7 again ."
    found, told, whole = read_along(pool(server, logprobs="no"))
    assert found == whole and (found.reasoning, found.text) == ("Hm.", "It is 7 again .")
    assert grows(told, found.text) and "It is 7" in told


def test_a_stop_string_that_the_server_leaves_in_is_never_told(server: StubServer) -> None:
    server.fault = lambda request: says(
        "".join(f"data: {json.dumps(e)}\n\n" for e in pieces(["4", "\n", "\nQ", ": 5"])) + "data: [DONE]\n\n"
    )
    found, told, _ = read_along(pool(server, logprobs="no"), stop=("\n\nQ",))
    assert found.text == "4" and set(told) == {"4"}


def test_a_server_that_sends_no_streams_is_asked_for_the_whole(server: StubServer) -> None:
    def whole_only(request: Request) -> Fault | None:
        return says({"error": {"message": "stream is not supported"}}, 400) if request.body.get("stream") else None

    server.fault = whole_only
    found, told, whole = read_along(pool(server, logprobs="no"))
    assert found == whole and not told
    server.fault = lambda request: None
    found, told, _ = read_along(pool(server, logprobs="no", omit=["stream", "stream_options"]))
    assert found.text == whole.text and not told and "stream" not in server.requests[-1].body


def test_a_stream_that_breaks_off_is_asked_for_again(server: StubServer) -> None:
    first: list[Request] = []

    def break_off(request: Request) -> Fault | None:
        if first or not request.body.get("stream"):
            return None
        first.append(request)
        return Fault(cut=True)

    server.fault = break_off
    found, told, whole = read_along(pool(server, logprobs="no", backoff=[0.01, 0.01]))
    assert isinstance(found, Generation) and found == whole and len(first) == 1
    assert all(found.text.startswith(text) for text in told)
    server.fault = lambda request: Fault(stall=3.0) if request.body.get("stream") else None
    found, told, _ = read_along(pool(server, logprobs="no", timeout=0.3, retries=0))
    assert "stayed silent" in str(found)


def pieces(words: Sequence[Any]) -> list[Any]:
    return [{"choices": [{"delta": {"content": word}}]} for word in words] + [
        {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_body_may_be_cut_anywhere(end: str, step: int) -> None:
    body = ": wait\n\n" + "".join(f"data: {json.dumps(e)}\n\n" for e in pieces(["caf\u00e9 ", "\ud83d", "\ude00", " 4"]))
    body = (body + "data: [DONE]\n\n").replace("\n", end)
    told: list[str] = []
    call = Call(None, "generate", {"messages": [["user", "x"]]}, {}, tell=told.append)  # type: ignore[arg-type]
    listener = Listener(call, DIALECTS["openai"], TAGS)
    for at in range(0, len(body), step):
        listener(body[at : at + step])
    assert parsed(body)["choices"][0]["message"]["content"] == "caf\u00e9 \ud83d\ude00 4"
    assert told[-1] == "caf\u00e9 \U0001f600 4" and grows(told, told[-1])


@pytest.mark.parametrize("step", [1, 3, 5, 100])
def test_a_key_that_a_server_repeats_in_parts_is_not_told_on(step: int) -> None:
    key, told = "abcd-efgh-1234-5678", list[str]()
    server = Server.__new__(Server)
    server._credentials = SimpleNamespace(secrets=[Secret(key)])  # type: ignore[assignment]
    call = Call(None, "generate", {"messages": [["user", "x"]]}, {}, tell=told.append)  # type: ignore[arg-type]
    listener = Listener(call, DIALECTS["openai"], TAGS, server.hide_begun)
    text = f"You sent {key}, I think."
    for at in range(0, len(text), step):
        listener(f"data: {json.dumps(pieces([text[at : at + step]])[0])}\n\n")
    assert told[-1].startswith("You sent ") and told[-1].endswith(", I think.")
    assert not [t for t in told if key[:4] in t]


def test_a_begun_reply_that_the_server_repeats_is_not_told_again() -> None:
    told: list[str] = []
    given = {"messages": [["user", "x"], ["assistant", "It is"]]}
    call = Call(None, "generate", given, {}, tell=told.append)  # type: ignore[arg-type]
    listener = Listener(call, DIALECTS["llamacpp"], TAGS)
    for event in pieces(["It", " is", " 7", "."]):
        listener(f"data: {json.dumps(event)}\n\n")
    assert told == [" 7", " 7.", " 7."]


def test_a_conversation_that_goes_on_is_read_along_too(server: StubServer) -> None:
    talk = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    found, told, whole = read_along(pool(server), talk)
    assert found == whole and grows(told, found.text)
