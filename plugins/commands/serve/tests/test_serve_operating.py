"""What keeps a server usable: grace for stragglers, caps, deadlines, clients that hang up; its card, metrics and memory."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from typing import Any

import httpx
import pytest

from moco_core import Method, ModelCallError, Pool, Reply, System
from moco_toolkit_authoring.scripted import Faults, ScriptedPool

from .conftest import say
from .serve_gates import VOTE, hold


def test_stragglers_of_a_panel_are_left_out_after_the_grace(serve: Any) -> None:
    gate, script = hold(5)
    slow = ScriptedPool({"slow": script})
    pool = [*ScriptedPool({"a": say, "b": say}).pool, *slow.pool]
    with serve(VOTE, Pool(pool), min_responses=2, grace=0.1) as server:
        body = server.chat("hello", moco={"trace": True}).json()
        votes = body["moco"]["meta"][0]["votes"]
        gate.set()
        assert [v["status"] != "failed" for v in votes] == [True, True, False]
        assert {r["model"] for r in body["moco"]["usage"]} == {"a", "b"}


class Judged(Method):
    """Asks a panel that it can do without, and a judge that it cannot."""

    class system(System):
        async def respond(self, question, context):
            *panel, judge = self.pool
            said = await context.gather((context.generate(m, question) for m in panel), tolerate=ModelCallError)
            verdict = await context.generate(judge, "Which of " + " / ".join(getattr(s, "text", "-") for s in said))
            return Reply.of(verdict)

    async def fit(self, pool, dev, context):
        return self.system(pool, self.options)


def test_a_failed_judge_is_an_error_never_a_members_answer(serve: Any) -> None:
    gate, slow = hold(5)

    def broken(call: Any) -> Any:
        raise ModelCallError("judge: out of order at /srv/models/judge")

    with serve(Judged, {"a": say, "judge": broken}, grace=0.05) as server:
        got = server.chat("hello")
        assert got.status_code == 502 and "I am a" not in got.text and "/srv" not in got.text
    # a judge is waited for, however long the panel's grace
    late = threading.Timer(0.3, gate.set)
    late.start()
    with serve(Judged, {"a": say, "judge": slow}, grace=0.05) as server:
        assert server.chat("hello").json()["choices"][0]["message"]["content"].startswith("I am judge")


def test_calls_and_tokens_are_capped(serve: Any) -> None:
    source = ScriptedPool(dict.fromkeys("abc", say))
    with serve(VOTE, source, calls=2) as server:
        got = server.chat("hello")
        assert got.status_code == 422 and got.json()["error"]["code"] == "cap_exceeded"
        assert "more than 2 model calls" in got.json()["error"]["message"]
    debate = {"name": "multiagent_refine", "rounds": 2, "summarizer": "vote", "temperature": 0.0}
    with serve(debate, tokens=40) as server:
        got = server.chat("hello")
        assert got.status_code == 422 and "40 tokens" in got.json()["error"]["message"]
    with serve(debate, tokens=4000) as server:
        assert server.chat("hello").status_code == 200


def test_a_deadline_ends_a_request_and_frees_its_calls(serve: Any) -> None:
    gate, script = hold(5)
    source = ScriptedPool({"a": script})
    with serve(VOTE, source, deadline=0.2) as server:
        got = server.chat("hello")
        assert got.status_code == 504 and got.json()["error"]["code"] == "deadline"
        second = server.chat("waits behind it")
        assert second.status_code == 504
        gate.set()
        assert server.chat("after it").status_code == 200
    assert [c.prompt for c in source.history] == ["hello", "after it"]


def test_a_client_that_hangs_up_frees_its_calls(serve: Any) -> None:
    gate, script = hold(5)
    source = ScriptedPool({"a": script, "b": script})
    with serve(VOTE, source) as server:
        for more in ({}, {"stream": True}):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    f"{server.url}/chat/completions",
                    json={"model": "system", "messages": [{"role": "user", "content": f"gone {more}"}], **more},
                    timeout=0.2,
                )
        deadline = time.monotonic() + 5
        while server.service.active and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.service.active == 0
        gate.set()
        assert server.chat("stays").status_code == 200
        scheduler = server.service.opened.runtime.scheduler
        assert not scheduler._pending and not scheduler._in_flight
    # what an engine had begun is finished; what waited behind it was never asked
    assert len([c for c in source.history if "gone" in c.prompt]) <= 2


def test_a_full_server_says_when_to_come_again(serve: Any) -> None:
    gate, script = hold()
    with serve(VOTE, {"a": script}, requests=2) as server, concurrent.futures.ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(server.chat, f"q{i}") for i in range(2)]
        while server.service.active < 2:
            time.sleep(0.01)
        busy = server.chat("third")
        assert busy.status_code == 429 and busy.headers["retry-after"] == "1"
        gate.set()
        assert all(f.result().status_code == 200 for f in futures)
        assert server.chat("third").status_code == 200


def test_the_card_carries_what_is_known(serve: Any) -> None:
    known = {"test": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 100}}
    with serve(VOTE, known=known) as server:
        card = httpx.get(f"{server.url}/models/system").json()
        assert card["moco"]["method"] == "Majority vote" and card["moco"]["test"] == known["test"]
        assert [m["name"] for m in card["moco"]["members"]] == ["a", "b", "c"]
        assert httpx.get(f"{server.url}/models/a").json()["moco"]["name"] == "a"
        assert httpx.get(f"{server.url}/models/z").status_code == 404


def test_prometheus_counts_requests_calls_and_tokens(serve: Any) -> None:
    with serve(VOTE) as server:
        used = server.chat("hello").json()["usage"]
        server.chat("hello", model="nobody")
        text = httpx.get(server.url.replace("/v1", "/metrics")).text
    assert 'moco_requests_total{status="200"} 1.0' in text and 'moco_requests_total{status="404"} 1.0' in text
    assert 'moco_model_calls_total{model="a",role="member"} 1.0' in text
    read = sum(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("moco_tokens_total") and 'kind="prompt"' in line
    )
    assert read == used["prompt_tokens"] and "moco_request_seconds_count 1.0" in text


def test_memory_is_flat(serve: Any) -> None:
    """What a request leaves behind: nothing that grows with their number."""
    import gc
    import tracemalloc

    with serve(VOTE, ("a",), replays=4) as server, httpx.Client() as client:

        def ask(count: int) -> None:
            for i in range(count):
                messages = [{"role": "user", "content": f"question {i % 7} " * 20}]
                got = client.post(f"{server.url}/chat/completions", json={"model": "system", "messages": messages})
                assert got.status_code == 200

        ask(12)
        gc.collect()
        tracemalloc.start()
        ask(8)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        ask(120)  # so many that what settles once hardly counts
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert grown < 120 * 400  # bytes a request: less than its body and its reply take


def _broken(call: Any) -> Exception:
    return ModelCallError("a: cannot read /srv/models/x.bin")


def test_faults_of_models_are_told_without_a_word_of_the_machine(serve: Any, capfd: Any) -> None:
    source = ScriptedPool({"a": say}, faults=Faults(when=lambda call: True, error=_broken))
    with serve(VOTE, source) as server:
        got = server.chat("hello")
        assert got.status_code == 502 and "/srv" not in got.text and "Traceback" not in got.text
        mark = got.json()["error"]["message"].rsplit(" ", 1)[1]
    assert f"[{mark}]" in capfd.readouterr().err
