"""A server that misbehaves: results equal a calm run, or exactly the affected questions fail; nothing is asked twice."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moco_core.errors import ModelCallError, PromptTooLong
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.types import Generation, Sampling
from moco_pool_openai.attempts import renewed, retry_after, wait_before
from moco_pool_openai.failures import failure_of
from moco_pool_openai.pacing import Pacer, Spacer
from moco_pool_openai.pool import OpenAIPool, Options
from moco_pool_openai.testing import Fault, Request, StubServer
from moco_toolkit_authoring import open_state

KEY = "sk-test-4242424242"
PROMPTS = [f"question {i}" for i in range(12)]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer(key=KEY) as stub:
        yield stub


def run(
    stub: StubServer, *, cache: Cache | None = None, prompts: list[str] = PROMPTS, **options: Any
) -> dict[str, Any]:
    """Ask the prompts together; return what each came to, errors as values."""
    given = {
        "models": ["alpha"],
        "base_url": stub.url,
        "backoff": [0.001, 0.02],
        "logprobs": "no",
        "server": "s",
        **options,
    }
    source = OpenAIPool(build(Options, given))

    async def work() -> dict[str, Any]:
        async with open_state(sampling=Sampling(max_new_tokens=32), cache=cache) as state:
            context = state.context("respond")
            model = source.models()[0]
            found = await context.gather((context.generate(model, p) for p in prompts), tolerate=ModelCallError)
            return dict(zip(prompts, found, strict=True))

    return asyncio.run(work())


def calm() -> dict[str, Any]:
    with StubServer(key=KEY) as stub:
        return run(stub)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, headers={"retry-after": "0.01"}),
        Fault(status=500),
        Fault(status=503, headers={"retry-after-ms": "5"}),
        Fault(cut=True),
        Fault(drop=True),
        Fault(body='{"choices": [{"index": 0, "mess'),
        Fault(body="<html>Bad gateway</html>"),
        Fault(body='{"id": "x", "object": "chat.completion", "choices": []}'),
        Fault(body="[]"),
    ],
    ids=["429", "500", "503", "cut", "drop", "half json", "html", "no choices", "a list"],
)
def test_passing_faults_change_nothing(server: StubServer, fault: Fault) -> None:
    """A burst: the first 15 requests fail, whoever makes them."""
    server.fault = lambda request: fault if request.number <= 15 else None
    assert run(server) == calm()
    assert len(server.requests) == 15 + len(PROMPTS)


@pytest.mark.parametrize("fault", [Fault(silence=5.0), Fault(stall=5.0)], ids=["before the first byte", "in the body"])
def test_a_silent_server_is_asked_again(server: StubServer, fault: Fault) -> None:
    server.fault = lambda request: fault if request.number <= 3 else None
    assert run(server, timeout=0.5) == calm()
    assert len(server.requests) == 3 + len(PROMPTS)


def test_a_slow_server_is_waited_for(server: StubServer) -> None:
    """Slow is not silent: neither first byte nor body comes too late."""
    server.fault = lambda request: Fault(silence=0.2, stall=0.2)
    assert run(server, timeout=30.0) == calm() and len(server.requests) == len(PROMPTS)


def test_faults_that_stay_fail_their_questions_alone(server: StubServer) -> None:
    def fault(request: Request) -> Fault | None:
        bad = {"question 3": Fault(status=500), "question 5": Fault(cut=True), "question 7": Fault(body="{")}
        return bad.get(request.prompt)

    server.fault = fault
    found, want = run(server, retries=2), calm()
    failed = {p for p, r in found.items() if isinstance(r, ModelCallError)}
    assert failed == {"question 3", "question 5", "question 7"}
    assert {p: r for p, r in found.items() if p not in failed} == {p: r for p, r in want.items() if p not in failed}
    assert "answers 500 after 3 attempts: injected failure 500" in str(found["question 3"])
    assert "the connection to http://127.0.0.1" in str(found["question 5"])
    assert "not valid JSON after 3 attempts" in str(found["question 7"])
    assert all("\n" not in str(found[p]) for p in failed)
    assert server.prompts()["question 3"] == 3


def test_refusals_are_not_repeated(server: StubServer) -> None:
    def fault(request: Request) -> Fault | None:
        if request.prompt == "question 1":
            return Fault(status=400)
        if request.prompt == "question 2":
            return Fault(status=429, body='{"error": {"message": "no credit", "code": "insufficient_quota"}}')
        if request.prompt == "question 4":
            return Fault(status=400, body='{"error": {"message": "This model\'s maximum context length is 8 tokens"}}')
        return None

    server.fault = fault
    found = run(server)
    assert {p for p, r in found.items() if isinstance(r, ModelCallError)} == {"question 1", "question 2", "question 4"}
    assert isinstance(found["question 4"], PromptTooLong)
    assert max(server.prompts().values()) == 1


def test_a_key_that_expires_half_way(server: StubServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    want = calm()

    def expire(request: Request) -> None:
        if request.number == 6:
            server.key = KEY + "-new"

    server.fault = expire  # type: ignore[assignment]
    cache = Cache(tmp_path / "calls.sqlite")
    found = run(server, cache=cache, max_in_flight=1)
    good = {p: r for p, r in found.items() if isinstance(r, Generation)}
    assert len(good) == 5 and all(want[p] == r for p, r in good.items())
    bad = [str(r) for r in found.values() if isinstance(r, ModelCallError)]
    assert len(bad) == 7 and all("the key in OPENAI_API_KEY was refused (401)" in b for b in bad)
    server.key = KEY  # a valid key again: only what failed is asked
    server.requests.clear()
    server.fault = lambda request: None
    assert run(server, cache=cache) == want and len(server.requests) == 7
    cache.close()
    everywhere = " ".join(bad) + caplog.text
    assert KEY not in everywhere
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_a_server_that_dies_and_comes_back(server: StubServer, tmp_path: Path) -> None:
    """It is gone after five replies, and back a moment later; what it had answered is not asked again."""
    want = calm()
    died = threading.Event()
    answered: list[str] = []

    def fault(request: Request) -> Fault | None:
        if request.number == 6:
            died.set()
        if died.is_set() and len(answered) < 100:
            return Fault(silence=30)
        answered.append(request.prompt)
        return None

    def undertaker() -> None:
        died.wait(30)
        server.stop()
        server.fault = lambda request: None
        time.sleep(0.3)
        server.start()

    server.fault = fault
    thread = threading.Thread(target=undertaker)
    thread.start()
    cache = Cache(tmp_path / "calls.sqlite")
    assert run(server, cache=cache, max_in_flight=1, backoff=[0.1, 0.2], retries=60) == want
    thread.join()
    assert all(server.prompts()[p] == 1 for p in answered[:5])
    server.requests.clear()
    assert run(server, cache=cache) == want and not server.requests
    cache.close()


def test_a_server_that_stays_dead(server: StubServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "calls.sqlite")
    first = run(server, cache=cache, prompts=PROMPTS[:4])
    server.fault = lambda request: Fault(drop=True)
    found = run(server, cache=cache, retries=1)
    assert {p: found[p] for p in PROMPTS[:4]} == first
    assert all(isinstance(found[p], ModelCallError) for p in PROMPTS[4:])
    assert all("after 2 attempts" in str(found[p]) for p in PROMPTS[4:])
    cache.close()


def test_the_deadline_ends_a_call(server: StubServer) -> None:
    server.fault = lambda request: Fault(status=500)
    found = run(server, prompts=PROMPTS[:2], retries=1000, deadline=0.5, backoff=[0.05, 0.1])
    assert all("within the deadline of 0.5 s" in str(r) for r in found.values())


def test_in_flight_is_bounded(server: StubServer) -> None:
    server.latency = 0.02
    run(server, max_in_flight=3)
    assert server.most <= 3


def test_retry_after_in_every_form() -> None:
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "0.5"}) == 0.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, now=lambda: 70.0) == 30
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, now=lambda: 700.0) == 0
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None
    assert retry_after({"retry-after-ms": "soon", "retry-after": "3"}) == 3
    assert retry_after({"x-ms-retry-after-ms": "700"}) == 0.7


@pytest.mark.parametrize(
    "form",
    [
        "90",
        "90.0",
        "90s",
        "1m30s",
        "1 minute and 30 seconds",
        "90000ms",
        "0:01:30",
        "2001-09-09T01:48:10Z",
        "2001-09-09T03:48:10+02:00",
        "2001-09-09 01:48:10",
        "Sun, 09 Sep 2001 01:48:10 GMT",
        "Sun, 09 Sep 2001 03:48:10 +0200",
        "Sun, 09 Sep 2001 01:48:10",
        "Sunday, 09-Sep-01 01:48:10 GMT",
        "Sun Sep  9 01:48:10 2001",
        "1000000090",
        "1000000090000",
    ],
)
def test_a_wait_is_a_duration_or_a_date_in_any_form(form: str) -> None:
    assert retry_after({"retry-after": form}, now=lambda: 1_000_000_000.0) == 90


def test_a_limit_that_is_used_up_is_waited_for_where_nothing_else_is_asked() -> None:
    limits = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert failure_of(429, "", limits).wait == 60
    assert failure_of(429, "Try again in 2s", limits).wait == 2
    assert failure_of(429, "", {**limits, "retry-after": "3"}).wait == 3
    assert failure_of(429, "", {**limits, "x-ratelimit-remaining-requests": "7"}).wait is None
    reset = {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2001-09-09T01:48:10Z"}
    assert renewed(reset, now=lambda: 1_000_000_000.0) == 90


def test_waits_double_with_jitter_and_respect_the_server() -> None:
    rng = random.Random(0)
    for attempt, span in ((1, 0.5), (2, 1.0), (3, 2.0), (10, 30.0)):
        waits = [wait_before(attempt, None, (0.5, 30.0), rng) for _ in range(200)]
        assert span / 2 <= min(waits) < max(waits) <= span and max(waits) - min(waits) > span / 4
    assert all(wait_before(1, 12.0, (0.5, 30.0), rng) >= 12.0 for _ in range(50))


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("rpm", "tpm"), [(5.0, None), (None, 100.0), (7.0, 90.0)])
def test_no_minute_holds_more_than_the_limits(rpm: float | None, tpm: float | None) -> None:
    clock = Clock()
    pacer = Pacer(rpm, tpm, clock=clock, sleep=clock.sleep)
    rng = random.Random(1)
    sent: list[tuple[float, float]] = []

    async def work() -> None:
        for _ in range(60):
            tokens = float(rng.randint(1, 40))
            await pacer.acquire(tokens)
            sent.append((clock.now, tokens))
            clock.now += rng.random()

    asyncio.run(work())
    for start, _ in sent:
        inside = [t for at, t in sent if start <= at < start + 60]
        assert rpm is None or len(inside) <= rpm
        assert tpm is None or sum(inside) <= tpm
    # and not much slower: requests of uneven size leave gaps
    assert clock.now <= 1.3 * 60 * max(60 / (rpm or 1e9), sum(t for _, t in sent) / (tpm or 1e9)) + 90


def test_a_pacer_holds_when_the_server_says_so() -> None:
    clock = Clock()
    pacer = Pacer(None, None, clock=clock, sleep=clock.sleep)
    pacer.hold(12.0)
    asyncio.run(pacer.acquire(1.0))
    assert clock.now == 12.0


def test_requests_of_a_burst_start_one_after_the_other() -> None:
    clock = Clock()
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    spacer = Spacer(0.25, clock=clock, sleep=sleep)

    async def burst() -> None:
        for _ in range(4):
            await spacer.turn()
        clock.now = 60.0
        await spacer.turn()  # after a pause nobody waits

    asyncio.run(burst())
    assert waits == [0.25, 0.5, 0.75]
