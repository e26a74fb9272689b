"""What is read out of replies: every form that servers give them, whole and in pieces."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from replies_of_servers import MODEL, NAN, read, said

from moco_core.models import Call
from moco_core.runtime.cache import decode_result, encode_result
from moco_pool_openai.failures import Damaged, RequestFailed, stated_failure
from moco_pool_openai.reading import parsed
from moco_pool_openai.wire import embeddings, rewards

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
    "thinking in blocks": ({"content": "4", "thinking_blocks": [{"type": "thinking", "thinking": "2+2."}]}, "4", "2+2."),
    "a summary in parts": (
        {
            "content": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "2+2."}]},
                {"type": "output_text", "text": "4"},
            ]
        },
        "4",
        "2+2.",
    ),
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
    "length": (
        *("length", "max_tokens", "model_length", "max_output_tokens", "MAX_TOKENS", "length: 8", "max_new_tokens"),
        *(
            "model_context_window_exceeded",
            "context_length_exceeded",
            "token limit reached",
            "repetition",
            "incomplete",
        ),
    ),
    "eos": ("stop", "eos", "end_turn", "STOP", "", None, "something new", 7),
}


@pytest.mark.parametrize(("ours", "theirs"), [(a, b) for a, row in FINISHES.items() for b in row])
def test_reasons_of_an_end(ours: str, theirs: Any) -> None:
    assert read(said({"content": "4"}, finish_reason=theirs)).finish_reason == ours


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop_sequence", "stop"), ("end_turn", "eos"), ("eos_token", "eos"), ("EOS", "eos"), ("stop", "stop")],
)
def test_a_reason_that_says_what_ended_a_reply_is_believed(theirs: str, ours: str) -> None:
    assert read(said({"content": "4"}, finish_reason=theirs), stop=("x",)).finish_reason == ours


@pytest.mark.parametrize("finish", ["other", "language", "unload", "pause_turn"])
def test_an_empty_reply_that_ended_for_no_known_reason_is_asked_for_again(finish: str) -> None:
    with pytest.raises(RequestFailed, match="before it wrote anything") as caught:
        read(said({"content": ""}, finish_reason=finish))
    assert caught.value.passing
    assert read(said({"content": "4"}, finish_reason=finish)).text == "4"
    for whole in ("stop", "end_turn", "", None):
        assert read(said({"content": ""}, finish_reason=whole)).text == ""


def test_what_ended_a_reply_is_told_where_the_server_tells_it() -> None:
    assert read(said({"content": "4"}), stop=("x",)).finish_reason == "stop"
    for name in ("stop_reason", "matched_stop"):
        assert read(said({"content": "4"}, **{name: "x"}), stop=("x",)).finish_reason == "stop"
        assert read(said({"content": "4"}, **{name: 151645}), stop=("x",)).finish_reason == "eos"
        assert read(said({"content": "4"}, **{name: None}), stop=("x",)).finish_reason == "eos"
    found = read(said({"content": "4x5"}, finish_reason="length"), stop=("x",))
    assert (found.text, found.finish_reason) == ("4", "stop")


@pytest.mark.parametrize(
    "finish",
    [
        *(
            "error",
            "abort",
            "cancelled",
            "insufficient_system_resource",
            "stream_error",
            "ERROR_LIMIT",
            "engine_overloaded",
        ),
        *("interrupted", "timeout", "user_cancel"),
    ],
)
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


@pytest.mark.parametrize(
    "finish",
    [
        "content_filter",
        "content_filter: SAFETY",
        "safety",
        "refusal",
        "guardrail_intervened",
        "ERROR_TOXIC",
        "image_safety",
    ],
)
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


FAILURES: dict[str, Any] = {
    "an object of its own": {"object": "error", "message": "Gone", "code": 500},
    "another API's": {"type": "error", "error": {"type": "overloaded_error", "message": "Gone"}},
    "a bare text": {"error": "Gone"},
    "a detail": {"detail": "Gone"},
    "a message": {"code": "InternalError", "message": "Gone"},
    "a field of the service's": {"choices": [], "x_groq": {"error": "Gone"}},
}


@pytest.mark.parametrize("event", FAILURES.values(), ids=list(FAILURES))
def test_a_failure_in_a_stream_is_no_reply_in_whatever_form_it_comes(event: Any) -> None:
    for done in (True, False):
        for before in ([], [piece({"content": "The answer is 3"})]):
            failure = stated_failure(parsed(stream(*before, event, done=done)))
            assert failure is not None and failure.said == "Gone" and failure.passing


def test_an_event_named_error_is_a_failure() -> None:
    failure = stated_failure(parsed('event: error\ndata: {"code": 429, "msg": "Gone"}\n\n'))
    assert failure is not None and failure.status == 429


STREAMS: dict[str, tuple[list[Any], str, str]] = {
    "parts behind a text": ([piece({"content": "4"}), piece({"content": [{"type": "text", "text": "!"}]}, "stop")], "4!", ""),
    "a text behind parts": (
        [piece({"content": [{"type": "thinking", "thinking": "2+2."}]}), piece({"content": "4!"}, "stop")],
        "4!",
        "2+2.",
    ),
    "details of thoughts": (
        [
            piece({"reasoning_details": [{"type": "reasoning.text", "text": "2"}]}),
            piece({"reasoning_details": [{"type": "reasoning.text", "text": "+2."}]}),
            piece({"content": "4!"}, "stop"),
        ],
        "4!",
        "2+2.",
    ),
    "the whole at the end": (
        [
            piece({"content": "4"}),
            piece({"content": "!"}),
            {"choices": [{"index": 0, "delta": {}, "message": {"content": "4!"}, "finish_reason": "stop"}]},
        ],
        "4!",
        "",
    ),
    "messages that grow beside the pieces": (
        [piece({"content": "4"}, message={"content": "4"}), piece({"content": "!"}, "stop", message={"content": "4!"})],
        "4!",
        "",
    ),
    "an index that is a text": ([{"choices": [{"index": "0", "delta": {"content": "4!"}, "finish_reason": "stop"}]}], "4!", ""),
    "a reason empty at times": ([piece({"content": "4"}, ""), piece({"content": "!"}, "stop"), piece({}, "")], "4!", ""),
}  # fmt: skip


@pytest.mark.parametrize(("events", "text", "reasoning"), STREAMS.values(), ids=list(STREAMS))
def test_streams_of_every_form(events: list[Any], text: str, reasoning: str) -> None:
    for form in (stream(*events), stream(*events, done=False), stream(*events).replace("\n\ndata", "\ndata")):
        found = read(parsed(form))
        assert (found.text, found.reasoning) == (text, reasoning)


def test_a_stream_without_a_reason_or_an_end_was_broken_off() -> None:
    for reason in (None, "", "null"):
        with pytest.raises(Damaged):
            parsed(stream(piece({"content": "The answer is 3"}, reason), done=False))


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
