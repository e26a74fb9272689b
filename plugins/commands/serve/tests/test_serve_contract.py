"""The contract of the endpoint: replies, parameters, usage, streams, decisions."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from typing import Any

import httpx
import pytest

from moco_command_serve.asking import read_ask
from moco_command_serve.limits import Limits, Refused
from moco_core import Generation, Method, ModelCallError, Question, Reply, Sampling, Span, System
from moco_toolkit_authoring.scripted import ScriptedPool

from .conftest import Telling, answers, events, grown, open_system, say
from .serve_gates import VOTE, hold

PROMPTS = [f"What is {i} plus {i * 7}? ünïcode" for i in range(12)]


def test_replies_are_those_of_respond_and_usage_is_that_of_the_records(serve: Any, tmp_path: Any) -> None:
    source = ScriptedPool({"a": say, "b": say, "c": say})
    (tmp_path / "alone").mkdir()
    sampling = Sampling(max_new_tokens=64, temperature=0.7)
    alone = answers(
        open_system(VOTE, source, tmp_path / "alone", sampling=sampling),
        [Question(id="ask-0", prompt=p) for p in PROMPTS],
    )
    with serve(VOTE, sampling=sampling) as server, concurrent.futures.ThreadPoolExecutor(12) as threads:
        got = list(threads.map(lambda p: server.chat(p).json(), PROMPTS))
    assert [g["choices"][0]["message"]["content"] for g in got] == [a.text for a in alone]
    for body, asked in zip(got, alone, strict=True):
        used = [(c.usage.prompt_tokens, c.usage.completion_tokens) for c in asked.calls]
        assert body["usage"]["prompt_tokens"] == sum(p for p, _ in used)
        assert body["usage"]["completion_tokens"] == sum(c for _, c in used)
        assert body["usage"]["total_tokens"] == sum(p + c for p, c in used)
        rows = {r["model"]: (r["prompt_tokens"], r["completion_tokens"]) for r in body["moco"]["usage"]}
        assert rows == {c.model: u for c, u in zip(asked.calls, used, strict=True)}
        assert body["model"] == "system" and body["choices"][0]["finish_reason"] == "stop"


def test_requests_at_once_share_batches(serve: Any) -> None:
    gate, script = hold()
    source = ScriptedPool({"a": script})
    with serve(VOTE, source) as server, concurrent.futures.ThreadPoolExecutor(20) as threads:
        futures = [threads.submit(server.chat, f"question {i}") for i in range(20)]
        while server.service.active < 20:
            time.sleep(0.01)
        gate.set()
        assert all(f.result().status_code == 200 for f in futures)
    assert sum(source.engine.batches) == 20 and len(source.engine.batches) <= 3
    assert max(source.engine.batches) >= 10


def test_equal_requests_are_asked_once(serve: Any) -> None:
    source = ScriptedPool({"a": say})
    with serve(VOTE, source) as server:
        first, second = server.chat("same").json(), server.chat("same").json()
    assert first["choices"] == second["choices"] and first["usage"] == second["usage"]
    assert len(source.history) == 1


def test_members_answer_under_their_own_names(serve: Any) -> None:
    with serve(VOTE) as server:
        names = [m["id"] for m in httpx.get(f"{server.url}/models").json()["data"]]
        assert names == ["system", "a", "b", "c"]
        for name in "abc":
            body = server.chat("hello", model=name).json()
            assert body["model"] == name and body["choices"][0]["message"]["content"].startswith(f"I am {name} ")
            assert [r["model"] for r in body["moco"]["usage"]] == [name]
        missing = server.chat("hello", model="sytem")
        assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"
        assert "did you mean 'system'" in missing.json()["error"]["message"]


def test_headers_tell_method_models_calls_decision_and_seconds(serve: Any) -> None:
    with serve(VOTE, replays=2) as server:
        got = server.chat("hello", moco={"trace": True})
        assert got.headers["x-moco-method"] == "Majority vote" and got.headers["x-moco-models"] == "a, b, c"
        assert got.headers["x-moco-calls"] == "3" and got.headers["x-moco-decision"] in "abc"
        assert float(got.headers["x-moco-seconds"]) >= 0
        mark = got.headers["x-moco-replay-id"]
        kept = httpx.get(f"{server.url}/replays/{mark}").json()
        assert kept["question"] == [["user", "hello"]] and len(kept["calls"]) == 3
        assert kept["calls"] == got.json()["moco"]["trace"]
        for _ in range(2):
            server.chat("other")
        assert httpx.get(f"{server.url}/replays/{mark}").status_code == 404  # the last two are kept
    with serve(VOTE) as server:
        got = server.chat("hello")
        assert "x-moco-replay-id" not in got.headers and "trace" not in got.json()["moco"]
        assert "--replays" in httpx.get(f"{server.url}/replays/x").json()["error"]["message"]


class Echo(Method):
    """Says what reached it, and asks its first model with the decoding of the request."""

    class system(System):
        async def respond(self, question, context):
            await context.generate(self.pool[0], question)
            turns = " | ".join(f"{m.role}: {m.content}" for m in question.messages())
            s = context.sampling
            return Reply(
                text=f"{turns} [{question.answer_kind} {context.seed} {s.temperature} {s.top_p} {s.max_new_tokens} {s.stop}]"
            )

    async def fit(self, pool, dev, context):
        return self.system(pool, self.options)


def test_history_system_prompts_and_settings_reach_the_method(serve: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "two?"}]},
    ]
    more = {"temperature": 1, "top_p": 0.5, "max_completion_tokens": 9, "stop": "x", "seed": 7, "user": "me", "n": None}
    with serve(Echo, kind="integer") as server:
        body = server.post("chat/completions", {"model": "system", "messages": messages, **more}).json()
        plain = server.chat("One?").json()
        own = server.chat("One?", moco={"kind": "math", "id": "q1"}).json()
    said = body["choices"][0]["message"]["content"]
    assert said == (
        "system: Be brief.\n\nAnd kind. | user: One? | assistant: 1 | user: And two? [integer 7 1.0 0.5 9 ('x',)]"
    )
    # what is not given is the system's own
    assert plain["choices"][0]["message"]["content"] == "user: One? [integer 0 0.0 1.0 64 ()]"
    assert own["choices"][0]["message"]["content"] == "user: One? [math 0 0.0 1.0 64 ()]"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temperatur": 1}, "temperatur"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"n": 99}, "n"),
        ({"n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"moco": {"trase": 1}}, "moco"),
        ({"moco": {"kind": "integr"}}, "moco"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": None}, "messages"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **more}
    with pytest.raises(Refused) as caught:
        ask = read_ask(body, chat=True, kind="text", limits=Limits())
        ask.sampling(Sampling())
        if ask.n > 1:  # the service refuses it where decoding is greedy
            raise Refused(400, "n", param="n")
    assert caught.value.status == 400 and caught.value.param == param
    assert str(caught.value).startswith(param.split(".")[0]) or param == "messages"


def test_a_setting_of_the_methods_own_is_not_passed_off_as_honoured(serve: Any) -> None:
    with serve({**VOTE, "samples": 2, "temperature": 0.5}) as server:
        refused = server.chat("hello", temperature=0.9)
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "temperature"
        assert "Majority vote has a setting of its own" in refused.json()["error"]["message"]
        assert server.chat("hello", temperature=0.5).status_code == 200
        assert server.chat("hello", max_tokens=7).status_code == 200


def test_several_replies_are_drawn_with_seeds_of_their_own(serve: Any) -> None:
    with serve(VOTE) as server:
        many = server.chat("hello", n=3, temperature=1.0, seed=5).json()
        texts = [c["message"]["content"] for c in many["choices"]]
        ones = [server.chat("hello", temperature=1.0, seed=s).json() for s in (5, 6, 7)]
        assert texts == [o["choices"][0]["message"]["content"] for o in ones]
        assert many["usage"]["total_tokens"] == sum(o["usage"]["total_tokens"] for o in ones)
        assert server.chat("hello", n=3).json()["error"]["param"] == "n"


def test_raw_text_is_continued_where_one_model_answers(serve: Any) -> None:
    with serve(VOTE) as server:
        refused = server.post("completions", {"model": "system", "prompt": "Once"})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "prompt"
        body = server.post("completions", {"model": "a", "prompt": "Once", "max_tokens": 3}).json()
        assert body["object"] == "text_completion" and body["choices"][0]["text"] == "I am a"
        assert body["choices"][0]["finish_reason"] == "length"
    with serve({"name": "prompt_routing", "router": "a", "router_answers": False}, ("a", "b")) as server:
        assert server.post("completions", {"model": "system", "prompt": ["Once"]}).json()["choices"][0]["text"]


def test_a_stream_says_that_it_lives_and_then_what_the_reply_is(serve: Any) -> None:
    gate, script = hold()
    body = {"model": "system", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with serve(VOTE, {"a": script, "b": script}, keep_alive=0.05) as server:
        whole = []
        with httpx.stream(
            "POST",
            f"{server.url}/chat/completions",
            json={**body, "stream_options": {"include_usage": True}},
            timeout=30,
        ) as got:
            assert (
                got.headers["content-type"] == "text/event-stream" and got.headers["x-moco-method"] == "Majority vote"
            )
            for piece in got.iter_text():
                whole.append(piece)
                gate.set()
        found = events("".join(whole))
        plain = server.chat("hi").json()
        assert found[0] == ": working"
        data = [e for e in found if not isinstance(e, str)]
        text = "".join(e["choices"][0]["delta"].get("content", "") for e in data if e["choices"])
        assert text == plain["choices"][0]["message"]["content"] and found[-1] == "DONE"
        assert data[0]["choices"][0]["delta"]["role"] == "assistant"
        assert data[-1]["usage"] == plain["usage"] and data[-1]["choices"] == []
        assert [e["choices"][0]["finish_reason"] for e in data[:-1]] == [None, "stop"]
        assert data[-2]["moco"]["decision"] == plain["moco"]["decision"]
        # without the option nobody is told the usage; what is cached comes at once, with all headers
        quick = httpx.post(f"{server.url}/chat/completions", json=body)
        assert "usage" not in events(quick.text)[-2] and quick.headers["x-moco-calls"] == "2"


def test_what_one_model_writes_is_streamed_as_it_writes(serve: Any) -> None:
    source = ScriptedPool(dict.fromkeys("ab", say), engine=Telling())
    with serve(VOTE, source) as server:
        got = events(server.chat("hi", model="a", stream=True, temperature=1.0, n=2, seed=4).text)
        plain = server.chat("hi", model="a", temperature=1.0, n=2, seed=4).json()
        for index, choice in enumerate(plain["choices"]):
            pieces = grown(got, index)
            assert "".join(pieces) == choice["message"]["content"] and len(pieces) > 3
        assert len({e["id"] for e in got if isinstance(e, dict)}) == 1 and got[-1] == "DONE"
        roles = [c["delta"].get("role") for e in got[:-1] for c in e["choices"]]
        assert roles.count("assistant") == 2
        # what is known already comes at once; what several models write is told by none of them
        assert len(grown(events(server.chat("hi", model="a", stream=True, temperature=1.0, n=2, seed=4).text))) == 1
        assert len(grown(events(server.chat("ho", stream=True).text))) == 1


def test_a_reply_that_turns_out_to_be_another_is_an_error_and_no_reply(serve: Any) -> None:
    engine = Telling()
    engine.lies = True
    with serve(VOTE, ScriptedPool({"a": lambda call: "something", "b": say}, engine=engine)) as server:
        got = events(server.chat("hi", model="a", stream=True).text)
    assert got[-2]["error"]["code"] == "changed" and got[-1] == "DONE"


def test_what_models_wrote_in_turns_is_streamed_in_turns(serve: Any) -> None:
    spans = (Span("one", "Hel"), Span("two", "lo"))
    source = ScriptedPool({"a": lambda call: Generation(text="Hello", spans=spans), "b": say})
    with serve(VOTE, source) as server:
        got = events(server.chat("hi", model="a", stream=True).text)
    assert [e["choices"][0]["delta"].get("content") for e in got[:-1]] == ["Hel", "lo", None]


def test_an_error_after_the_first_comment_is_an_event_and_before_it_a_status(serve: Any) -> None:
    gate = threading.Event()

    def fail(call: Any) -> Any:
        gate.wait(0.3)
        raise ModelCallError("a: /home/somebody/secret broke")

    with serve(VOTE, {"a": fail}, keep_alive=0.05) as server:
        got = server.chat("hi", stream=True)
        found = events(got.text)
        assert got.status_code == 200 and found[-2]["error"]["code"] == "model_call_failed" and found[-1] == "DONE"
        gate.set()
        assert "secret" not in got.text
    with serve(VOTE, {"a": fail}) as server:
        assert server.chat("hi", stream=True).status_code == 502


def test_a_router_tells_its_choice_without_asking_the_chosen_model(serve: Any) -> None:
    router = {"name": "prompt_routing", "router": "r", "router_answers": False, "decode": "generate", "fallback": "c"}
    source = ScriptedPool({"r": lambda call: "B", "b": say, "c": say})
    ask = {"messages": [{"role": "user", "content": "hello"}]}
    with serve(router, source) as server:
        got = server.post("decide", ask).json()
        assert {c.model for c in source.history} == {"r"}
        chosen = server.chat("hello").json()["moco"]["decision"]
        assert got["model"] == chosen and got["object"] == "decision" and "parsed" in got["scores"]
        assert [row["model"] for row in got["usage"]] == ["r"]
    with serve(VOTE) as server:
        refused = server.post("decide", ask)
        assert refused.status_code == 400 and "does not choose one model" in refused.json()["error"]["message"]
