"""Waiting no longer than a call has time, spending no more than is allowed, and sending what a server takes."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_asking import SURROUNDINGS, answered, ask, pool, says

from moco_core.errors import ConfigError, ModelCallError, PoolError
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.types import Generation, Message
from moco_pool_openai.pacing import Held, Pacer
from moco_pool_openai.pool import Options
from moco_pool_openai.testing import Fault, Request, StubServer
from moco_toolkit_authoring import open_state


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


# -------------------------------------------------------------------- waiting


@pytest.mark.parametrize("wait", ["10", "3600", "inf", "99999999999999999999"])
def test_a_wait_beyond_the_deadline_ends_the_calls_at_once(server: StubServer, wait: str) -> None:
    server.fault = lambda request: Fault(status=429, headers={"retry-after": wait})
    found = ask(pool(server, logprobs="no", max_in_flight=1, deadline=2.0), "a", "b", "c")
    assert all(isinstance(f, ModelCallError) for f in found)
    assert all("asks to wait" in str(f) and "what is finished is kept" in str(f) for f in found)
    assert len(server.requests) == 1  # the others would only be refused as well


def test_a_wait_that_fits_is_kept_in_whatever_form_it_is_asked_for(server: StubServer) -> None:
    limits = [
        Fault(status=429, headers={"retry-after": "0.01"}),
        says({"error": {"code": 429, "message": "Slow down; try again in 10ms."}}),
        says([{"error": {"code": 429, "message": "Slow down", "details": [{"retryDelay": "0.01s"}]}}], 429),
    ]
    server.fault = lambda request: limits[request.number - 1] if request.number <= 3 else None
    (found,) = ask(pool(server, logprobs="no", deadline=60.0), "a")
    assert isinstance(found, Generation) and len(server.requests) == 4


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_patience_is_asked_of_by_the_server_and_not_by_ones_own_limits() -> None:
    clock = Clock()
    pacer = Pacer(1.0, None, patience=5.0, clock=clock, sleep=clock.sleep)

    async def work() -> None:
        assert (await pacer.acquire(1.0)).held == 0
        assert (await pacer.acquire(1.0)).held == 0 and clock.now == 160.0  # one a minute
        pacer.hold(4.0)
        assert (await pacer.acquire(1.0)).held == 4.0 and clock.now == 220.0
        pacer.hold(5.5)
        with pytest.raises(Held) as caught:
            await pacer.acquire(1.0)
        assert caught.value.seconds == 5.5 and clock.now == 220.0

    asyncio.run(work())


# -------------------------------------------------------------------- what a server says of itself


def test_a_list_that_is_late_is_asked_for_again_so_that_the_dialect_is_known(server: StubServer) -> None:
    server.owner = "vllm"
    server.list_fault = lambda number: Fault(status=503) if number <= 2 else None
    (found,) = ask(pool(server, logprobs="no"), "a", temperature=1.0, top_k=5)
    assert isinstance(found, Generation) and server.lists == 3
    assert server.requests[-1].body["top_k"] == 5


def test_a_list_that_stays_away_is_an_error_unless_the_dialect_is_stated(server: StubServer) -> None:
    server.list_fault = lambda number: Fault(status=503)
    (found,) = ask(pool(server, logprobs="no", retries=2), "a")
    assert isinstance(found, PoolError) and "answers 503" in str(found) and server.lists == 3 and not server.requests
    (found,) = ask(pool(server, logprobs="no", retries=2, dialect="vllm"), "a")
    assert isinstance(found, Generation) and server.requests[-1].body["top_k"] == -1


@pytest.mark.parametrize("first", ["a list", "no list"])
def test_a_list_that_comes_or_goes_between_runs_is_an_error_unless_the_dialect_is_stated(
    server: StubServer, first: str
) -> None:
    def reply(listed: bool, **options: Any) -> Any:
        server.list_fault = lambda number: None if listed else Fault(status=404)
        (found,) = ask(pool(server, logprobs="no", **options), "a")
        return found

    server.owner = "vllm"
    assert isinstance(reply(first == "a list"), Generation)
    for _ in range(2):
        found = reply(first != "a list")
        assert isinstance(found, PoolError) and "requests depend on it: state the pool option dialect" in str(found)
    assert isinstance(reply(first != "a list", dialect="vllm"), Generation)
    assert isinstance(reply(first == "a list"), Generation)


def test_a_list_that_stayed_away_once_proves_nothing(server: StubServer) -> None:
    server.owner = "vllm"
    server.list_fault = lambda number: Fault(status=503)
    assert isinstance(ask(pool(server, logprobs="no", retries=0), "a")[0], PoolError)
    server.list_fault = lambda number: None
    assert isinstance(ask(pool(server, logprobs="no"), "a")[0], Generation)


def test_a_list_of_an_ordinary_server_may_come_and_go(server: StubServer) -> None:
    for listed in (True, False, True):
        server.list_fault = lambda number, listed=listed: None if listed else Fault(status=404)
        assert isinstance(ask(pool(server, logprobs="no"), "a")[0], Generation)


def test_a_list_that_is_to_be_waited_for_beyond_the_deadline_is_not_waited_for(server: StubServer) -> None:
    server.list_fault = lambda number: Fault(status=429, headers={"retry-after": "3600"})
    (found,) = ask(pool(server, logprobs="no"), "a")
    assert isinstance(found, PoolError) and "answers 429" in str(found) and server.lists == 1


def test_who_does_not_ask_has_stated_a_dialect(server: StubServer) -> None:
    def fingerprint(**options: Any) -> str:
        return pool(server, **options).models()[0].fingerprint

    assert fingerprint(check=False) == fingerprint(dialect="openai") != fingerprint()
    assert fingerprint(check=False, dialect="vllm") == fingerprint(dialect="vllm")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"error": "Unexpected endpoint or method. (GET /models)"},
            "does not speak the OpenAI API (Unexpected endpoint",
        ),
        (
            "<html><title>Welcome</title></html>",
            "does not speak the OpenAI API (the server answers with 'a web page: Welcome'",
        ),
        ("pong", "does not speak the OpenAI API (the server's reply is not valid JSON"),
    ],
)
def test_a_server_that_speaks_otherwise_is_one_line_at_once(server: StubServer, body: Any, words: str) -> None:
    server.list_fault = lambda number: says(body)
    (found,) = ask(pool(server), "a")
    assert isinstance(found, PoolError) and words in str(found) and "check base_url" in str(found)
    assert server.lists == 1 and not server.requests


def test_a_list_of_no_known_form_is_no_list(server: StubServer) -> None:
    for body in ({"data": None}, {"object": "list"}, {"ok": True}):
        server.list_fault = lambda number, body=body: says(body)  # type: ignore[misc]
        assert isinstance(ask(pool(server, logprobs="no"), "a")[0], Generation)


def test_log_probabilities_that_are_forbidden_are_found_out_and_other_refusals_prove_nothing(
    server: StubServer,
) -> None:
    def forbidding(request: Request) -> Fault | None:
        if request.body.get("logprobs"):
            return says({"error": {"message": "You may not have logprobs of this model."}}, 403)
        return None

    server.fault = forbidding
    assert isinstance(ask(pool(server), "a")[0], Generation)
    server.requests.clear()
    assert isinstance(ask(pool(server), "a")[0], Generation) and len(server.requests) == 1  # remembered
    server.fault = lambda request: says({"error": {"message": "max_tokens is not known"}}, 400)
    (found,) = ask(pool(server, ["beta"]), "a")
    assert "max_tokens is not known" in str(found)
    server.fault = lambda request: None
    (found,) = ask(pool(server, ["beta"]), "a")
    assert found.token_logprobs


# -------------------------------------------------------------------- what is sent


def test_a_filter_that_is_off_is_not_sent_where_nobody_fills_it_in(server: StubServer) -> None:
    ask(pool(server, logprobs="no"), "a", temperature=0.7, top_p=1.0)
    assert not {"top_p", "n"} & set(server.requests[-1].body)
    ask(pool(server, logprobs="no", dialect="vllm"), "a", temperature=0.7, top_p=1.0)
    assert server.requests[-1].body["top_p"] == 1.0


def test_fields_are_left_out_by_name(server: StubServer) -> None:
    server.reply = lambda request: "one two END three"
    entries = [{"model": "alpha", "omit": ["temperature"]}, "beta"]
    source = pool(server, entries, logprobs="no", omit=["stop", "user"], extra_body={"user": "me", "tier": "low"})
    for model, fields in ((0, {"model", "messages", "max_tokens", "tier"}), (1, {"temperature"})):
        (found,) = ask(source, "a", model=model, stop=("END",))
        assert fields <= set(server.requests[-1].body)
        assert not {"stop", "user"} & set(server.requests[-1].body)
        assert (found.text, found.finish_reason) == ("one two ", "stop")  # cut here, if not there
    assert "temperature" not in server.requests[0].body
    for name in ("model", "messages", "prompt"):
        with pytest.raises(ConfigError, match="no request goes without"):
            build(Options, {"models": ["alpha"], "omit": [name]})


def test_everything_that_changes_a_request_changes_the_fingerprint(server: StubServer) -> None:
    def fingerprint(entry: Any = None, **options: Any) -> str:
        return pool(server, [{"model": "alpha", **(entry or {})}], **options).models()[0].fingerprint

    changed = [
        fingerprint(omit=["top_p"]),
        fingerprint({"template": {"enable_thinking": False}}),
        fingerprint({"template": {"enable_thinking": True}}),
        fingerprint(max_tokens_field="max_completion_tokens"),
        fingerprint(headers={"X-Tier": "low"}),
        fingerprint(base_url=f"{server.url}?api-version=1"),
        fingerprint(extra_body={"tier": "low"}),
        fingerprint(stream=True),
    ]
    assert len({fingerprint(), *changed}) == 9
    assert fingerprint({"omit": ["top_p"]}) == changed[0]
    assert fingerprint(retries=0, deadline=5.0, budget=1.0, entry={"prices": [1, 1]}) == fingerprint()


def test_replies_can_be_had_in_pieces_alone(server: StubServer) -> None:
    def streaming(request: Request) -> Fault:
        if not request.body.get("stream"):
            return says({"error": {"message": "this service answers only with stream set"}}, 400)
        events = [
            {"choices": [{"delta": {"content": word}, "finish_reason": None}]} for word in ("The ", "answer ", "is 4.")
        ]
        events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
        events += [{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}}]
        return says("".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n")

    server.fault = streaming
    (found,) = ask(pool(server, logprobs="no"), "a")
    assert "set the pool option stream: true" in str(found)
    (found,) = ask(pool(server, logprobs="no", stream=True), "a")
    assert (found.text, found.usage.completion_tokens) == ("The answer is 4.", 4)
    assert server.requests[-1].body["stream_options"] == {"include_usage": True}


def test_half_of_a_surrogate_pair_is_mended_in_replies_and_refused_in_prompts(server: StubServer) -> None:
    found = answered(pool(server, logprobs="no"), server, '{"choices": [{"message": {"content": "caf\\ud83d 4"}}]}')
    assert found.text == "caf\ufffd 4"
    server.fault = lambda request: None
    (again,) = ask(
        pool(server, logprobs="no"), [Message("user", "x"), Message("assistant", found.text), Message("user", "y")]
    )
    assert isinstance(again, Generation)
    server.requests.clear()
    (error,) = ask(pool(server, logprobs="no"), "caf\ud83d?")
    assert "half of a surrogate pair" in str(error) and "\n" not in str(error) and not server.requests


# -------------------------------------------------------------------- what is kept and paid


def test_a_reply_that_was_broken_off_is_not_kept(server: StubServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "calls.sqlite")
    for text in ("", "The answer is 3"):
        broken = {"choices": [{"finish_reason": "error", "message": {"content": text}}]}
        server.fault = lambda request, broken=broken: says(broken)  # type: ignore[misc]
        (found,) = ask(pool(server, logprobs="no", retries=1), "a", cache=cache)
        assert "broke off while it wrote" in str(found) and "after 2 attempts" in str(found)
    server.fault = lambda request: None
    assert isinstance(ask(pool(server, logprobs="no"), "a", cache=cache)[0], Generation)
    cache.close()


def test_what_a_cached_reply_cost_comes_with_it(server: StubServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "calls.sqlite")
    entry = {"model": "alpha", "prices": [1e6, 1e6]}
    (first,) = ask(pool(server, [entry], logprobs="no"), "a b c", cache=cache)
    (second,) = ask(pool(server, [entry], logprobs="no"), "a b c", cache=cache)
    assert len(server.requests) == 1 and first.meta == second.meta and first.meta["cost"] > 0
    cache.close()


def test_a_budget_counts_what_is_unknown_as_the_most_it_can_be(server: StubServer) -> None:
    entry = {"model": "alpha", "prices": [1e6, 1e6]}
    source = pool(server, [entry], logprobs="no", budget=1000.0)
    found = answered(source, server, {"choices": [{"message": {"content": "4"}}]}, max_new_tokens=32)
    assert found.meta["cost"] is None
    assert source.engine.ledger.money == pytest.approx(
        1 / 3 + 4 + 32
    )  # a letter, the frame of a message, the whole budget
    assert source.engine.ledger.tokens == math.ceil(1 / 3 + 4 + 32)


def test_a_reply_that_cannot_be_read_is_paid_as_well(server: StubServer) -> None:
    entry = {"model": "alpha", "prices": [1e6, 1e6]}
    source = pool(server, [entry], logprobs="no", budget=1000.0, retries=1)
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    found = answered(source, server, {"choices": [], "usage": usage})
    assert isinstance(found, ModelCallError) and source.engine.ledger.money == 30


def test_another_model_than_was_asked_is_a_warning_of_the_run_also_from_the_cache(
    server: StubServer, tmp_path: Path
) -> None:
    reply = {"choices": [{"message": {"content": "4"}}], "model": "cheap\u001b[2Jone"}
    server.fault = lambda request: says(reply)

    async def warnings(cache: Cache) -> list[str]:
        async with open_state(cache=cache) as state:
            (model,) = pool(server, logprobs="no").models()
            context = state.context("respond")
            await context.gather(context.generate(model, text) for text in "abc")
            return list(state.warnings)

    cache = Cache(tmp_path / "calls.sqlite")
    for _ in range(2):
        assert asyncio.run(warnings(cache)) == [
            "'alpha' was asked and 'cheap\\x1b[2Jone' answers; see that it is the model meant"
        ]
    assert len(server.requests) == 3
    cache.close()


def test_what_a_server_says_steers_no_terminal(server: StubServer) -> None:
    found = answered(pool(server, logprobs="no"), server, {"error": {"message": "no\u001b]0;x\u0007 more\u202e"}}, 400)
    assert str(found).isprintable()
    server.list_fault = lambda number: says({"data": [{"id": "a\u001b[31m"}]})
    (found,) = ask(pool(server), "a")
    assert "it has: a" in str(found) and str(found).isprintable()
