"""What is read out of replies: every form that servers give them, what they cost, and what is no reply at all."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core.errors import ModelCallError
from moco_core.models import Call
from moco_core.runtime.cache import decode_result, encode_result
from moco_core.types import Generation, Sampling, Usage
from moco_pool_openai.dialects import DIALECTS
from moco_pool_openai.failures import Damaged, RequestFailed, failure_of, stated_failure
from moco_pool_openai.listing import answers_for, listing_of, same_model
from moco_pool_openai.pool import OpenAIPool, Options
from moco_pool_openai.reading import generation, parsed
from moco_pool_openai.usage import used_by
from moco_pool_openai.wire import embeddings, rewards

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


PARTS: dict[str, tuple[Any, str, str]] = {
    "a text": ({"content": "4"}, "4", ""),
    "null": ({"content": None}, "", ""),
    "no content": ({"role": "assistant"}, "", ""),
    "no parts": ({"content": []}, "", ""),
    "one part": ({"content": {"type": "text", "text": "4"}}, "4", ""),
    "texts": ({"content": [{"type": "text", "text": "It is "}, {"type": "output_text", "text": "4"}]}, "It is 4", ""),
    "bare texts": ({"content": ["It is ", "4"]}, "It is 4", ""),
    "parts without a type": ({"content": [{"text": "4"}]}, "4", ""),
    "a thought in parts": (
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2+2."}]}, {"type": "text", "text": "4"}]},
        "4",
        "2+2.",
    ),
    "a thought as text": ({"content": [{"type": "reasoning", "text": "2+2."}, {"type": "text", "text": "4"}]}, "4", "2+2."),
    "texts of a new kind": ({"content": [{"type": "answer_text", "text": "4"}]}, "4", ""),
    "parts of other kinds": ({"content": [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "4"}]}, "4", ""),
    "reasoning_content": ({"content": "4", "reasoning_content": "2+2."}, "4", "2+2."),
    "reasoning": ({"content": "4", "reasoning": "2+2."}, "4", "2+2."),
    "thinking": ({"content": "4", "thinking": "2+2."}, "4", "2+2."),
    "the same thought twice": ({"content": "4", "reasoning": "2+2.", "reasoning_content": "2+2."}, "4", "2+2."),
    "reasoning in details": ({"content": "4", "reasoning_details": [{"type": "reasoning.text", "text": "2+2."}]}, "4", "2+2."),
    "a hidden thought": ({"content": "4", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, "4", ""),
    "a summary of thoughts": ({"content": "4", "reasoning": {"summary": "2+2."}}, "4", "2+2."),
    "tags in the text": ({"content": "<think>2+2.</think>4"}, "4", "2+2."),
    "channels": (
        {"content": "<|channel|>analysis<|message|>2+2.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"},
        "4",
        "2+2.",
    ),
    "both": ({"content": "<think>so</think>4", "reasoning": "2+2."}, "4", "2+2.\n\nso"),
    "half of a pair": ({"content": "caf\ud83d 4", "reasoning": "\udc00"}, "caf\ufffd 4", "\ufffd"),
    "both halves": ({"content": "\ud83d\ude00 4"}, "\U0001f600 4", ""),
}  # fmt: skip


@pytest.mark.parametrize(("message", "text", "reasoning"), PARTS.values(), ids=list(PARTS))
def test_messages_of_every_form(message: Any, text: str, reasoning: str) -> None:
    found = read(said(message))
    assert (found.text, found.reasoning) == (text, reasoning)
    assert decode_result(encode_result(found)) == found


def test_the_choice_with_the_first_index_is_taken_of_several() -> None:
    rows = [{"index": i, "finish_reason": "stop", "message": {"content": str(i)}} for i in (2, 0, 1)]
    assert read({"choices": rows}).text == "0"
    assert read({"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}).text == "a"
    assert read({"choices": [{"delta": {"content": "a"}}]}).text == "a"
    assert read({"choices": [{"text": "a", "finish_reason": "length"}]}, "text").finish_reason == "length"


FINISHES = {
    "length": ("length", "max_tokens", "model_length", "max_output_tokens", "MAX_TOKENS", "length: 8"),
    "eos": ("stop", "eos", "end_turn", "STOP", "", None, "something new", 7),
}


@pytest.mark.parametrize(("ours", "theirs"), [(a, b) for a, row in FINISHES.items() for b in row])
def test_reasons_of_an_end(ours: str, theirs: Any) -> None:
    assert read(said({"content": "4"}, finish_reason=theirs)).finish_reason == ours


def test_what_ended_a_reply_is_told_where_the_server_tells_it() -> None:
    assert read(said({"content": "4"}), stop=("x",)).finish_reason == "stop"
    for name in ("stop_reason", "matched_stop"):
        assert read(said({"content": "4"}, **{name: "x"}), stop=("x",)).finish_reason == "stop"
        assert read(said({"content": "4"}, **{name: 151645}), stop=("x",)).finish_reason == "eos"
        assert read(said({"content": "4"}, **{name: None}), stop=("x",)).finish_reason == "eos"
    found = read(said({"content": "4x5"}, finish_reason="length"), stop=("x",))
    assert (found.text, found.finish_reason) == ("4", "stop")


@pytest.mark.parametrize("finish", ["error", "abort", "cancelled", "insufficient_system_resource"])
def test_a_reply_that_was_broken_off_is_no_reply(finish: str) -> None:
    for text in ("", "The answer is 3"):
        with pytest.raises(RequestFailed, match="broke off while it wrote") as caught:
            read(said({"content": text}, finish_reason=finish))
        assert caught.value.passing
    for reason in (finish, None, "stop"):
        with pytest.raises(RequestFailed, match="Payment missing") as caught:
            read(said({"content": "The"}, finish_reason=reason, error={"code": 402, "message": "Payment missing"}))
        assert not caught.value.passing


def test_a_refusal_is_what_the_model_said() -> None:
    found = read(said({"content": None, "refusal": "I am a program and do not eat."}))
    assert found.text == "I am a program and do not eat." and found.meta["refusal"] is True
    assert read(said({"content": [{"type": "refusal", "refusal": "No."}]})).text == "No."
    assert read(said({"content": "Yes.", "refusal": ""})).meta == {}


@pytest.mark.parametrize("finish", ["content_filter", "content_filter: SAFETY", "safety", "refusal"])
def test_what_a_filter_took_away_is_a_failure_and_what_it_left_is_marked(finish: str) -> None:
    with pytest.raises(RequestFailed, match="content filter withheld") as caught:
        read(said({"content": ""}, finish_reason=finish))
    assert not caught.value.passing
    assert read(said({"content": "Half"}, finish_reason=finish)).meta["content_filter"] is True


def test_a_call_of_a_tool_is_no_answer() -> None:
    tool = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    for message in ({"content": None, "tool_calls": [tool]}, {"content": "", "function_call": tool["function"]}):
        with pytest.raises(RequestFailed, match="call of a tool") as caught:
            read(said(message, finish_reason="tool_calls"))
        assert not caught.value.passing
    assert read(said({"content": "4", "tool_calls": [tool]}, finish_reason="tool_calls")).text == "4"
    assert read(said({"content": "4", "tool_calls": []})).text == "4"


ROWS = [{"token": "The", "logprob": -0.5}, {"token": " end", "logprob": -1.5, "bytes": list(b" end")}]
SHAPES: dict[str, tuple[Any, Any]] = {
    "rows": ({"logprobs": {"content": ROWS}}, None),
    "rows alone": ({"logprobs": ROWS}, None),
    "rows with ids": ({"logprobs": {"content": [{**r, "id": i} for i, r in enumerate(ROWS, 7)]}}, (7, 8)),
    "columns": ({"logprobs": {"tokens": ["The", " end"], "token_logprobs": [-0.5, -1.5]}}, None),
    "columns with ids": (
        {"logprobs": {"tokens": ["The", " end"], "token_logprobs": [-0.5, -1.5], "token_ids": [7, 8]}},
        (7, 8),
    ),
    "ids beside": ({"logprobs": {"content": ROWS}, "token_ids": [7, 8]}, (7, 8)),
    "ids that do not fit": ({"logprobs": {"content": ROWS}, "token_ids": [7, 8, 9]}, None),
    "ids that are none": ({"logprobs": {"content": ROWS}, "token_ids": ["7", True]}, None),
}


@pytest.mark.parametrize(("choice", "ids"), SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("route", ["chat", "text"])
def test_log_probabilities_of_every_form(choice: Any, ids: Any, route: str) -> None:
    found = read(said({"content": "The end"}, text="The end", **choice), route)
    assert found.token_logprobs == (-0.5, -1.5)
    plain = read(said({"content": "The end"}, logprobs={"content": ROWS}))
    assert found.token_ids == (ids or plain.token_ids) and len(set(plain.token_ids)) == 2


def test_log_probabilities_that_are_absent_or_rounded() -> None:
    for none in (None, {}, {"content": None}, {"content": []}, {"tokens": [], "token_logprobs": []}, []):
        assert read(said({"content": "4"}, logprobs=none)).token_logprobs == ()
    rows = [{"token": "a", "logprob": 1e-7}, {"token": "b", "logprob": float("-inf")}, {"token": "c", "logprob": -9999}]
    assert read(said({"content": "abc"}, logprobs={"content": rows})).token_logprobs == (0.0, -9999.0, -9999.0)


NAN, DEEP, HUGE = float("nan"), "[" * 100_000, "9" * 5000
DAMAGED: dict[str, str] = {
    "nothing": "",
    "no JSON": "{'choices': []}",
    "half of it": json.dumps(said({"content": "4"}))[:-5],
    "a web page": "<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
    "a thousand levels": DEEP,
    "a number of 5000 digits": HUGE,
    "a text": '"yes"',
    "a number": "4",
    "null": "null",
    "a list": "[]",
    "no choices": "{}",
    "empty choices": '{"choices": []}',
    "choices that are null": '{"choices": null}',
    "choices that are a mapping": '{"choices": {"0": {}}}',
    "a choice that is a text": '{"choices": ["4"]}',
    "a choice that is null": '{"choices": [null]}',
    "a choice of nothing": '{"choices": [{}]}',
    "a message that is a text": json.dumps(said("4")),
    "a message that is a list": json.dumps(said(["4"])),
    "content that is a number": json.dumps(said({"content": 4})),
    "content that is a truth": json.dumps(said({"content": True})),
    "content that is a mapping": json.dumps(said({"content": {"4": 4}})),
    "a part that is null": json.dumps(said({"content": [None]})),
    "a text that is a number": json.dumps(said({"content": [{"type": "text", "text": 4}]})),
    "a thought that is a number": json.dumps(said({"content": "4", "reasoning": 4})),
    "a log-probability that is NaN": json.dumps(
        said({"content": "4"}, logprobs={"content": [{"token": "4", "logprob": NAN}]})
    ),
    "one that is a text": json.dumps(said({"content": "4"}, logprobs={"content": [{"token": "4", "logprob": "-1"}]})),
    "one above 0": json.dumps(said({"content": "4"}, logprobs={"content": [{"token": "4", "logprob": 50}]})),
    "one of 400 digits": json.dumps(said({"content": "4"}, logprobs={"content": [{"token": "4", "logprob": 10**400}]})),
    "one too few": json.dumps(said({"content": "4"}, logprobs={"tokens": ["4", "5"], "token_logprobs": [-1]})),
    "one that is null": json.dumps(said({"content": "4"}, logprobs={"tokens": ["4"], "token_logprobs": [None]})),
    "bytes that are none": json.dumps(
        said({"content": "4"}, logprobs={"content": [{"token": "4", "bytes": [999], "logprob": -1}]})
    ),
    "half of a stream": 'data: {"choices": [{"delta": {"content": "4"}}]}\n\n',
    "a stream of texts": 'data: "4"\n\ndata: [DONE]\n\n',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=list(DAMAGED))
def test_what_is_no_reply_fails_its_call_in_one_line(text: str) -> None:
    with pytest.raises(Damaged) as caught:
        read(parsed(text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 and caught.value.passing


NAMES = (
    "choices message content text type reasoning logprobs token logprob tokens token_logprobs bytes finish_reason index"
)
NAMES += " usage total_tokens prompt_tokens error code model token_ids refusal"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8) | st.just("\ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(JSON, JSON, JSON)
def test_no_reply_does_more_than_fail_its_call(whole: Any, message: Any, extra: Any) -> None:
    """And what is read can be stored."""
    shaped = {
        "choices": [{"message": message, "logprobs": extra, "finish_reason": extra}],
        "usage": extra,
        "model": extra,
    }
    for reply in (whole, {"choices": whole}, shaped, said({"content": message, "reasoning": extra})):
        try:
            stated_failure(reply)
            found = read(reply, prices=(1.0, 2.0))
        except ModelCallError as error:
            assert "\n" not in str(error).replace("\\n", "") or isinstance(error, RequestFailed)
            continue
        assert decode_result(encode_result(found)) == found
        found.text.encode()
        found.reasoning.encode()


THOUGHTS = {"reasoning_tokens": 64}
USAGES: dict[str, tuple[Any, tuple[int, int] | None]] = {
    "plain": ({"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}, (8, 3)),
    "thoughts among the written": (
        {"prompt_tokens": 8, "completion_tokens": 90, "total_tokens": 98, "completion_tokens_details": THOUGHTS},
        (8, 90),
    ),
    "thoughts in the total alone": ({"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 75}, (8, 67)),
    "thoughts in total and details": (
        {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 75, "completion_tokens_details": THOUGHTS},
        (8, 67),
    ),
    "thoughts in the details alone": (
        {"prompt_tokens": 8, "completion_tokens": 3, "completion_tokens_details": THOUGHTS},
        (8, 67),
    ),
    "thoughts beside": ({"prompt_tokens": 8, "completion_tokens": 3, "reasoning_tokens": 64}, (8, 67)),
    "nothing written": ({"prompt_tokens": 8, "total_tokens": 40}, (8, 32)),
    "nothing read": ({"completion_tokens": 3, "total_tokens": 11}, (8, 3)),
    "the names of another API": ({"input_tokens": 8, "output_tokens": 3}, (8, 3)),
    "texts": ({"prompt_tokens": "8", "completion_tokens": "3"}, (8, 3)),
    "floats": ({"prompt_tokens": 8.0, "completion_tokens": 3.0}, (8, 3)),
    "none": (None, None),
    "no mapping": ("none", None),
    "empty": ({}, None),
    "zeros": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
    "the total alone": ({"total_tokens": 11}, None),
    "the prompt alone": ({"prompt_tokens": 8}, None),
    "NaN": ({"prompt_tokens": NAN, "completion_tokens": 3}, None),
    "negative": ({"prompt_tokens": -8, "completion_tokens": 3}, None),
    "huge": ({"prompt_tokens": 8, "completion_tokens": 10**30}, None),
    "truths": ({"prompt_tokens": True, "completion_tokens": 3}, None),
    "words": ({"prompt_tokens": "many", "completion_tokens": "few"}, None),
}  # fmt: skip


@pytest.mark.parametrize(("usage", "tokens"), USAGES.values(), ids=list(USAGES))
def test_what_a_reply_used_and_costs(usage: Any, tokens: tuple[int, int] | None) -> None:
    """Unknown is unknown, never 0; the reply itself is kept."""
    found = read({**said({"content": "4"}), "usage": usage}, prices=(1e6, 10e6))
    assert found.text == "4"
    assert found.meta["cost"] == (None if tokens is None else tokens[0] + 10 * tokens[1])
    if tokens is not None:
        assert found.usage == Usage(*tokens)


def test_tokens_that_the_service_had_in_its_cache_have_a_price_of_their_own() -> None:
    for usage in (
        {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 80}},
        {"prompt_tokens": 100, "completion_tokens": 1, "cached_tokens": 80},
        {"prompt_tokens": 100, "completion_tokens": 1, "prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20},
        {"input_tokens": 100, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 80}},
    ):
        reply = {**said({"content": "4"}), "usage": usage}
        assert read(reply, prices=(1e6, 10e6), cached_price=0.1e6).meta["cost"] == pytest.approx(20 + 8 + 10)
        assert read(reply, prices=(1e6, 10e6), cached_price=0.0).meta["cost"] == 30
        assert read(reply, prices=(1e6, 10e6)).meta["cost"] == 110
    assert (
        used_by({"usage": {"prompt_tokens": 5, "completion_tokens": 1, "cached_tokens": 80}}).cost((1e6, 0), 0.0) == 0
    )


def test_what_the_service_says_it_charges_counts_where_there_are_no_prices() -> None:
    usage = {"prompt_tokens": 8, "completion_tokens": 3, "cost": 0.25}
    assert read({**said({"content": "4"}), "usage": usage}).meta == {"cost": 0.25}
    assert read({**said({"content": "4"}), "usage": usage}, prices=(1e6, 1e6)).meta["cost"] == 11
    for odd in (NAN, -1, True, "0.25", None, 10**400):
        assert read({**said({"content": "4"}), "usage": {**usage, "cost": odd}}).meta == {}


def test_the_name_that_a_reply_comes_under_is_recorded() -> None:
    assert read({**said({"content": "4"}), "model": "gpt-x-0613"}).meta["served_model"] == "gpt-x-0613"
    for odd in (None, "", 7, ["m"]):
        assert "served_model" not in read({**said({"content": "4"}), "model": odd}).meta


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-11-20", True),
        ("gpt-4", "gpt-4-0613", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4", "gpt-4-turbo-2024-04-09", False),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", True),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", True),
        ("mistral-small-latest", "mistral-small-2506", True),
        ("models/gemini-2.5-flash", "gemini-2.5-flash", True),
        ("gemini-2.5-flash", "models/gemini-2.5-flash-preview-05-20", True),
        ("qwen3", "qwen3:latest", True),
        ("qwen3:8b", "qwen3:8b", True),
        ("openai/gpt-4o:free", "openai/gpt-4o", True),
        ("openai/gpt-4o", "gpt-4o-2024-08-06", True),
        ("Qwen/Qwen3-8B", "qwen/qwen3-8b", True),
        ("qwen2.5-7b", "qwen2.5-14b", False),
        ("llama3.2", "llama3.1", False),
    ],
)
def test_names_of_replies_that_are_what_was_asked_for(asked: str, served: str, same: bool) -> None:
    assert answers_for(asked, served) is same


def test_lists_of_models_of_every_form() -> None:
    rows = [{"id": "a", "owned_by": "VLLM"}, {"id": "b", "aliases": ["b-latest", 7]}]
    for body in (rows, {"data": rows}, {"object": "list", "data": rows, "models": None}, {"models": rows}):
        found = listing_of(body)
        assert found is not None and found.ids == ("a", "b", "b-latest") and found.owners == ("vllm", "")
    assert listing_of(["a", "b"]).ids == listing_of({"models": [{"name": "a"}, {"model": "b"}]}).ids == ("a", "b")  # type: ignore[union-attr]
    assert listing_of({"data": []}).ids == ()  # type: ignore[union-attr]
    for none in (
        None,
        {},
        {"data": None},
        {"data": {"a": 1}},
        "a",
        7,
        [[1]],
        [{"object": "model"}],
        {"data": [{"id": 7}]},
    ):
        assert listing_of(none) is None
    assert same_model("models/m", "m") and same_model("m", "m:latest") and not same_model("m:1b", "m:2b")
    assert not same_model("m:free", "m")


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_no_list_does_more_than_be_none(body: Any) -> None:
    found = listing_of(body)
    assert found is None or all(isinstance(name, str) for name in found.ids)
    stated_failure(body)
    assert failure_of(400, json.dumps(body), {}).said


def stream(*events: Any, done: bool = True) -> str:
    lines = [f"data: {json.dumps(e)}\n\n" for e in events]
    return ": wait\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else "")


def piece(delta: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


def test_a_reply_in_pieces_is_the_reply_at_once() -> None:
    rows = [{"token": "4", "logprob": -0.5, "bytes": [52]}, {"token": "!", "logprob": -1.0, "bytes": [33]}]
    usage = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    text = stream(
        piece({"role": "assistant", "content": ""}),
        piece({"reasoning_content": "2"}),
        piece({"reasoning_content": "+2."}),
        piece({"content": "4"}, logprobs={"content": rows[:1]}, token_ids=[7]),
        piece({"content": "!"}, "stop", logprobs={"content": rows[1:]}, token_ids=[8], stop_reason="x"),
        {"model": "m", "choices": [], "usage": usage},
    )
    whole = said(
        {"content": "4!", "reasoning_content": "2+2."}, logprobs={"content": rows}, token_ids=[7, 8], stop_reason="x"
    )
    want = read({**whole, "usage": usage, "model": "m"}, prices=(1.0, 1.0))
    for form in (text, text.replace("\n", "\r\n"), text.replace("data: [DONE]\n\n", ""), "\ufeff" + text):
        assert read(parsed(form), prices=(1.0, 1.0)) == want
    columns = [
        {"choices": [{"index": 0, "text": t, "logprobs": {"tokens": [t], "token_logprobs": [-1.0]}}]} for t in "ab"
    ]
    found = read(parsed(stream(*columns)), "text")
    assert (found.text, found.token_logprobs) == ("ab", (-1.0, -1.0))


def test_a_failure_in_the_middle_of_a_stream_is_one() -> None:
    failure = stated_failure(
        parsed(stream(piece({"content": "4"}), {"error": {"code": 429, "message": "Slow down"}}, done=False))
    )
    assert failure is not None and failure.status == 429 and failure.passing and failure.said == "Slow down"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "Too bad"}}, "Too bad"),
        ({"error": "Too bad"}, "Too bad"),
        ({"message": "Too bad"}, "Too bad"),
        ({"detail": "Too bad"}, "Too bad"),
        ({"detail": [{"loc": ["body", "top_p"], "msg": "too large", "type": "x"}]}, "top_p: too large"),
        ({"object": "error", "message": "Too bad", "code": 400}, "Too bad"),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "Too bad"}}, "Too bad"),
        ([{"error": {"message": "Too bad"}}], "Too bad"),
        ({"errors": [{"message": "Too bad"}, {"message": "Worse"}]}, "Too bad; Worse"),
        (
            {"error": {"code": 400, "message": "Bad", "metadata": {"raw": '{"error": {"message": "really"}}'}}},
            "Bad: really",
        ),
        ({"error": {"message": {"detail": "Too bad"}}}, "Too bad"),
        ("Too bad", "Too bad"),
        ("Too\n  bad", "Too bad"),
        ("<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "a web page: 502 Bad Gateway"),
        ("", "status 400"),
        ({}, "status 400"),
        ({"error": {}}, "status 400"),
        ({"error": {"message": None, "code": 7}}, "status 400"),
        ({"error": 7}, "status 400"),
    ],
)
def test_what_servers_explain_themselves_with(body: Any, words: str) -> None:
    assert failure_of(400, body if isinstance(body, str) else json.dumps(body), {}).said == words


@pytest.mark.parametrize(
    ("said_so", "wait"),
    [
        ("Please try again in 20s.", 20.0),
        ("Please try again in 6m1.5s.", 361.5),
        ("try again in 250ms", 0.25),
        ("Please retry after 2 seconds", 2.0),
        ("Retry in 1h2m", 3720.0),
        ("Rate limited; resets in 3 minutes", 180.0),
        ("try again later", None),
        ("in 20s all is over", None),
    ],
)
def test_waits_that_are_asked_for_in_words(said_so: str, wait: float | None) -> None:
    assert failure_of(429, json.dumps({"error": {"message": said_so}}), {}).wait == wait
    assert failure_of(429, json.dumps({"error": {"message": said_so}}), {"retry-after": "7"}).wait == 7


def test_odd_waits_are_no_waits() -> None:
    assert failure_of(429, "", {"retry-after": "nan"}).wait is None
    assert failure_of(429, "", {"retry-after": "-5"}).wait == 0
    assert failure_of(429, "", {"retry-after": "inf"}).wait == float("inf")
    assert failure_of(429, json.dumps({"error": {"details": [{"retryDelay": "31s"}]}}), {}).wait == 31


def test_vectors_of_every_form_and_none() -> None:
    call = Call(MODEL, "embed", {"texts": ["a", "b"]}, {})
    packed = [base64.b64encode(struct.pack("<2f", *v)).decode() for v in ((0.5, 1.0), (2.0, -4.0))]
    rows = [{"index": 1, "embedding": packed[1]}, {"index": 0, "embedding": packed[0]}]
    assert embeddings(call, {"data": rows}) == ((0.5, 1.0), (2.0, -4.0))
    assert embeddings(call, {"data": [{"embedding": [1]}, {"embedding": [2]}]}) == ((1.0,), (2.0,))
    bad: list[Any] = [
        None,
        {},
        [{"embedding": [1]}],
        [{"embedding": [1]}, {"embedding": []}],
        [{"embedding": [1]}, {"embedding": [1, 2]}],
    ]
    bad += [[{"embedding": [1]}, {"embedding": [x]}] for x in (NAN, "1", None, True, 10**400)]
    bad += [[{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}], [{"embedding": [1]}, {"embedding": "?"}]]
    for data in bad:
        with pytest.raises(Damaged):
            embeddings(call, {"data": data})
    for value in (True, 10**400, "1", None):
        with pytest.raises(Damaged):
            rewards(call, {"data": [{"data": [value]}]})


def test_thoughts_and_what_a_server_had_read_before_stand_in_the_reply() -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 90, "completion_tokens_details": THOUGHTS}
    told = read({**said({"content": "a"}), "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 16}}})
    assert (told.meta["reasoning_tokens"], told.meta["cached_tokens"], told.usage) == (64, 16, Usage(30, 90))
    silent = read({**said({"content": "a"}), "usage": {"prompt_tokens": 30, "completion_tokens": 90}})
    assert not {"reasoning_tokens", "cached_tokens"} & set(silent.meta)
