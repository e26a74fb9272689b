"""The pool against a small server: the conformance checks, what is sent, what is read, what is remembered."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_methods import check_methods
from openai_asking import KEY, SURROUNDINGS, ask, pool

from moco_core.errors import ConfigError, ModelCallError
from moco_core.models import Call
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.types import Generation, Message, Sampling
from moco_pool_openai.dialects import DIALECTS
from moco_pool_openai.pacing import Pacer
from moco_pool_openai.pool import OpenAIPool, Options
from moco_pool_openai.reading import generation
from moco_pool_openai.testing import Fault, Request, StubServer
from moco_toolkit_authoring import open_state, run_checks


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)


class PlainSocket:
    """A listener that says something that is no TLS to whoever calls."""

    def __enter__(self) -> int:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return int(self.socket.getsockname()[1])

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

    def __exit__(self, *exc: object) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)


@pytest.mark.parametrize("logprobs", ["yes", "no"])
def test_conformance(server: StubServer, logprobs: str) -> None:
    settings = [{"models": ["alpha", "beta", "alpha"], "base_url": server.url, "logprobs": logprobs}]
    results = run_checks("pool", "openai", settings=settings)
    assert not [(r.name, r.message) for r in results if r.status == "failed"]
    done = {r.name for r in results if r.status == "passed"}
    assert {"generation_works", "stop_strings_stop", "seeds_reproduce", "batches_change_nothing"} <= done
    assert ("logprobs_fit_their_tokens" in done) == (logprobs == "yes")


def test_describing_asks_nobody(server: StubServer) -> None:
    source = pool(server, ["alpha", {"model": "org/beta", "description": "b", "prices": [1.0, 2.0]}, "alpha"])
    models = source.models()
    assert [m.name for m in models] == ["alpha-1", "beta", "alpha-2"]
    assert [m.copy for m in models] == [0, 0, 1]
    assert models[1].prices == (1.0, 2.0) and models[1].description == "b"
    assert not server.requests and not server.lists


def test_what_is_sent(server: StubServer) -> None:
    source = pool(server, extra_body={"user": "me"})
    ask(source, "hello", temperature=0.7, top_p=0.9, stop=("x", "y"))
    body = server.requests[-1].body
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["stop"]) == (0.7, 0.9, 32, ["x", "y"])
    assert body["user"] == "me" and 0 <= body["seed"] < 2**31 and "top_k" not in body
    ask(source, "raw text", raw=True)
    assert server.requests[-1].path == "/v1/completions" and server.requests[-1].body["prompt"] == "raw text"
    assert "seed" not in server.requests[-1].body  # greedy
    ask(pool(server, max_tokens_field="max_completion_tokens"), "hello")
    assert server.requests[-1].body["max_completion_tokens"] == 32 and "max_tokens" not in server.requests[-1].body


def test_dialects_decide_what_is_sent(server: StubServer) -> None:
    talk = [Message("user", "count"), Message("assistant", "one two")]
    (error,) = ask(pool(server), talk)
    assert isinstance(error, ModelCallError) and "no way to continue an assistant message" in str(error)
    (error,) = ask(pool(server), "a", temperature=1.0, top_k=5)
    assert isinstance(error, ModelCallError) and "neither top_k nor min_p" in str(error)
    server.owner = "vllm"  # it introduces itself in its list of models
    ask(pool(server), talk, temperature=1.0, top_k=5, stop=tuple("abcdefg"))
    body = server.requests[-1].body
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (5, 0.0, 1.0) and len(body["stop"]) == 7
    ask(pool(server, dialect="llamacpp"), talk)
    assert "continue_final_message" not in server.requests[-1].body


def test_a_reply_that_repeats_what_it_continues() -> None:
    """As llama.cpp 2026.10 answered: the continued message again, and log-probabilities with ids on both routes."""
    rows = [{"id": 352, "token": " town", "bytes": list(b" town"), "logprob": -0.5}]
    chat = {"choices": [{"finish_reason": "length", "message": {"content": "The town"}, "logprobs": {"content": rows}}]}
    text = {"choices": [{"finish_reason": "length", "text": " town", "logprobs": {"content": rows}}]}
    model = OpenAIPool(Options(models=("m",), base_url="http://127.0.0.1:1/v1")).models()[0]
    params = Sampling(max_new_tokens=1).params()
    talk = Call(model, "generate", {"messages": [["user", "Say it."], ["assistant", "The"]]}, params)
    turn = Call(model, "generate", {"messages": [["user", "The"]]}, params)
    raw = Call(model, "generate", {"text": "The"}, params)
    for call, reply, route, said in (
        (talk, chat, "chat", " town"),
        (turn, chat, "chat", "The town"),
        (raw, text, "text", " town"),
    ):
        read = generation(call, reply, route, DIALECTS["llamacpp"], tags=(), prices=None)
        assert (read.text, read.token_ids, read.token_logprobs) == (said, (352,), (-0.5,))
    assert generation(talk, chat, "chat", DIALECTS["vllm"], tags=(), prices=None).text == "The town"


def test_more_stop_strings_than_the_server_takes(server: StubServer) -> None:
    server.reply = lambda request: "one two three four five six seven"
    (reply,) = ask(pool(server), "a", stop=("q", "z", "x", "j", "five"))
    assert len(server.requests[-1].body["stop"]) == 4
    assert (reply.text, reply.finish_reason) == ("one two three four ", "stop")


def test_reasoning_is_kept_apart(server: StubServer) -> None:
    server.reasoning = "I think."
    (reply,) = ask(pool(server), "a")
    assert reply.reasoning == "I think." and reply.text.startswith("I say")
    server.reasoning = ""
    server.reply = lambda request: "<think>so so</think>\nyes"
    (reply,) = ask(pool(server), "b")
    assert (reply.reasoning, reply.text) == ("so so", "yes")
    (reply,) = ask(pool(server, reasoning_tags=[]), "b")
    assert reply.text == "<think>so so</think>\nyes"


def test_logprobs_are_asked_once_and_remembered(server: StubServer) -> None:
    first = pool(server)
    assert not first.models()[0].can("logprobs")  # nobody knows yet
    (reply,) = ask(first, "a")
    assert len(server.requests) == 2 and reply.token_logprobs  # one probe, one question
    second = pool(server)
    assert second.models()[0].can("logprobs")
    assert second.models()[0].fingerprint == first.models()[0].fingerprint
    ask(second, "b")
    assert len(server.requests) == 3


def test_a_server_without_logprobs(server: StubServer) -> None:
    server.logprobs = False
    (reply,) = ask(pool(server), "a")
    assert isinstance(reply, Generation) and not reply.token_logprobs
    assert not pool(server).models()[0].can("logprobs")
    errors = ask(pool(server, ["beta"], logprobs="yes"), "a", "b")
    assert all(isinstance(e, ConfigError) and "gives no log-probabilities for 'beta'" in str(e) for e in errors)


def test_embeddings_keep_their_order(server: StubServer) -> None:
    source = pool(server, [{"model": "alpha", "capabilities": ["embed"]}])

    async def work(texts: list[str]) -> Any:
        async with open_state() as state:
            return await state.context("fit").embed(source.models()[0], texts)

    one, two = asyncio.run(work(["one", "two"]))
    assert one != two and asyncio.run(work(["two", "one"])) == (two, one)


def test_money_and_its_limit(server: StubServer, tmp_path: Path) -> None:
    server.reply = lambda request: "a b c d"
    entry = {"model": "alpha", "prices": [1_000_000.0, 10_000_000.0]}  # 1 per prompt token, 10 per completion token
    cache = Cache(tmp_path / "calls.sqlite")
    (reply,) = ask(pool(server, [entry], logprobs="no"), "one two three", cache=cache)
    assert reply.meta["cost"] == 3 + 40
    # at most 43 + 2 * (about 6 + 40) fit: the third and fourth call are refused, whatever runs together
    source = pool(server, [entry], logprobs="no", budget=120.0)
    replies = ask(source, *(f"one two {i}" for i in range(4)), max_new_tokens=4, cache=cache)
    refused = [r for r in replies if isinstance(r, ModelCallError)]
    assert len(refused) == 2 and all("budget is used up" in str(r) for r in refused)
    assert source.engine.ledger.money == 86
    before = len(server.requests)
    again = pool(server, [entry], logprobs="no", budget=120.0)
    replies = ask(again, *(f"one two {i}" for i in range(4)), max_new_tokens=4, cache=cache)
    assert not [r for r in replies if isinstance(r, ModelCallError)]  # two were kept, two are paid from a fresh budget
    assert len(server.requests) == before + 2
    tokens = pool(server, logprobs="no", budget_tokens=100)
    assert sum(isinstance(r, ModelCallError) for r in ask(tokens, *map(str, range(30)))) > 0
    assert tokens.engine.ledger.tokens <= 100
    cache.close()


def test_fingerprints(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def print_of(**options: Any) -> str:
        return pool(server, **options).models()[0].fingerprint

    base = print_of()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert print_of(api_key=KEY, rpm=5.0, retries=1, max_in_flight=3, timeout=1.0) == base
    assert print_of(server="mine") == print_of(server="mine", base_url="http://127.0.0.1:1/v1") != base
    others = [
        print_of(extra_body={"a": 1}),
        print_of(seeds=False),
        print_of(reasoning_tags=[]),
        print_of(logprobs="no"),
    ]
    others += [print_of(models=[{"model": "alpha", "revision": "2"}]), print_of(models=["beta"])]
    assert len({base, *others}) == 7


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"models": []}, "models: empty"),
        ({"models": ["a"], "base_url": "localhost:8000"}, "base_url: expected an address such as"),
        ({"models": ["a"], "base_url": "http://me:pw@host/v1"}, "without a password in it"),
        (
            {"models": [{"model": "a", "capabilities": ["step"]}]},
            "a server can give generate, logprobs, embed, reward; got 'step'",
        ),
        ({"models": ["a"], "budget": 1.0}, "models[0].prices: missing"),
        ({"models": ["a"], "rpm": 0.1}, "rpm: expected"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIPool(build(Options, options)).models()
    assert line in str(caught.value) and len(caught.value.problems) == 1 and "pw" not in str(caught.value)


def test_bad_servers_are_one_line_and_no_question(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def line(source: OpenAIPool) -> str:
        errors = ask(source, "a", "b")
        assert all(isinstance(e, ConfigError) for e in errors) and len({str(e) for e in errors}) == 1
        assert "\n" not in str(errors[0]) and KEY not in str(errors[0])
        return str(errors[0])

    assert "does not list the model 'alpah' (entry 'alpah'), did you mean 'alpha'?" in line(pool(server, ["alpah"]))
    dead = StubServer()
    dead.port = 9  # nobody listens
    assert "no server at http://127.0.0.1:9/v1" in line(pool(dead))
    with PlainSocket() as port:
        assert "TLS connection failed" in line(pool(server, base_url=f"https://127.0.0.1:{port}/v1"))
    server.key = KEY
    assert "no key was given in OPENAI_API_KEY" in line(pool(server))
    monkeypatch.setenv("MY_KEY", KEY + "-old")
    assert "the key in MY_KEY was refused (401)" in line(pool(server, api_key_env="MY_KEY"))
    assert "no key for https://api.openai.com/v1" in line(OpenAIPool(Options(models=("gpt-x",))))
    assert not server.requests
    monkeypatch.setenv("MY_KEY", KEY)
    assert isinstance(ask(pool(server, api_key_env="MY_KEY"), "a")[0], Generation)
    assert isinstance(ask(pool(server, api_key=KEY), "a")[0], Generation)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_that_nobody_vouches_for_is_one_line(tmp_path: Path) -> None:
    files = {name: str(tmp_path / f"{name}.pem") for name in ("key", "cert")}
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", files["key"], "-out", files["cert"]]
    subprocess.run(make, check=True, capture_output=True)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(files["cert"], files["key"])
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def serve() -> None:
            for _ in range(2):
                with contextlib.suppress(OSError), secure.wrap_socket(plain.accept()[0], server_side=True):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        given = {"models": ["alpha"], "base_url": f"https://localhost:{plain.getsockname()[1]}/v1"}
        (error,) = ask(OpenAIPool(build(Options, given)), "a")
    assert isinstance(error, ConfigError) and "\n" not in str(error)
    assert "the TLS connection failed" in str(error) and "certificate verify failed" in str(error)
    assert "point SSL_CERT_FILE at the server's certificate authority" in str(error)


def test_every_attempt_keeps_the_pace(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait for the pacer one by one, repeated ones again, and what a reply used is noted."""
    slots: list[Any] = []

    class Noted(Pacer):
        async def acquire(self, tokens: float) -> Any:
            slots.append(await super().acquire(tokens))
            return slots[-1]

    monkeypatch.setattr("moco_pool_openai.server.Pacer", Noted)
    server.fault = lambda request: Fault(status=500) if request.number <= 2 else None
    replies = ask(pool(server, logprobs="no", rpm=600.0, tpm=60_000.0), *(f"say {i}" for i in range(5)))
    assert len(slots) == len(server.requests) == 7
    used = {g.usage.prompt_tokens + g.usage.completion_tokens for g in replies}
    assert sum(slot.tokens in used for slot in slots) == 5


def test_models_on_several_servers(server: StubServer) -> None:
    with StubServer(["delta"]) as other:
        source = pool(server, ["alpha", {"model": "delta", "base_url": other.url}])
        assert isinstance(ask(source, "a", model=0)[0], Generation)
        assert isinstance(ask(source, "a", model=1)[0], Generation)
        assert {r.body["model"] for r in server.requests} == {"alpha"}
        assert {r.body["model"] for r in other.requests} == {"delta"}


def test_a_server_without_a_list_of_models(server: StubServer) -> None:
    source = pool(server, check=False)
    assert isinstance(ask(source, "a")[0], Generation) and server.lists == 0
    (error,) = ask(pool(server, ["nobody"], check=False, logprobs="no"), "a")
    assert "answers 404" in str(error)


def test_names_that_clash_with_given_ones(server: StubServer) -> None:
    entries: list[Any] = [{"model": "x/alpha", "name": "alpha"}, "alpha", "y/alpha"]
    names = [m.name for m in pool(server, entries).models()]
    assert names[0] == "alpha" and len(set(names)) == 3


def test_the_reply_function_sees_the_request(server: StubServer) -> None:
    seen: list[Request] = []
    server.reply = lambda request: seen.append(request) or "ok"  # type: ignore[func-returns-value]
    ask(pool(server, logprobs="no"), "what?")
    assert seen[0].prompt == "what?" and seen[0].headers["content-type"] == "application/json"
    assert not {"x-stainless-os", "x-stainless-arch", "x-stainless-runtime-version"} & set(seen[0].headers)


def test_methods_run_unchanged(server: StubServer) -> None:
    cache = Cache(None)
    check_methods(pool(server, ["alpha", "beta", "gamma"]), cache)
    asked = len(server.requests)
    check_methods(pool(server, ["alpha", "beta", "gamma"]), cache)
    assert len(server.requests) == asked  # a new connection, the same cache: nothing is asked
    cache.close()
