"""What is no reply fails its call in one line, and does no more; what servers say of their failures, and of waiting."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replies_of_servers import DEEP, HUGE, NAN, read, said

from moco_core.errors import ModelCallError
from moco_core.runtime.cache import decode_result, encode_result
from moco_pool_openai.failures import Damaged, RequestFailed, failure_of, stated_failure
from moco_pool_openai.listing import listing_of
from moco_pool_openai.reading import parsed

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


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_no_list_does_more_than_be_none(body: Any) -> None:
    found = listing_of(body)
    assert found is None or all(isinstance(name, str) for name in found.ids)
    stated_failure(body)
    assert failure_of(400, json.dumps(body), {}).said


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
        ({"error_code": 17, "error_msg": "Too bad"}, "Too bad"),
        ({"base_resp": {"status_code": 1004, "status_msg": "Too bad"}}, "Too bad"),
        ({"fault": {"faultstring": "Too bad", "detail": {"errorcode": "x"}}}, "Too bad"),
        ({"errors": {"top_p": ["Too bad"]}}, "top_p: Too bad"),
        ({"Message": "Too bad"}, "Too bad"),
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


INSTEAD: list[tuple[dict[str, Any], int | None, bool]] = [
    ({"base_resp": {"status_code": 1004, "status_msg": "Too bad"}, "choices": None}, None, True),
    ({"error_code": 429, "error_msg": "Too bad"}, 429, True),
    ({"code": "invalid_argument", "message": "Too bad", "request_id": "x"}, 400, False),
    ({"success": False, "errors": [{"code": 401, "message": "Too bad"}], "result": None}, None, True),
    ({"detail": "Too bad"}, None, True),
    ({"status": 503, "title": "Too bad"}, 503, True),
    ({"choices": [], "message": "Too bad"}, None, True),
]


@pytest.mark.parametrize(("body", "status", "passing"), INSTEAD)
def test_words_in_place_of_a_reply_are_a_failure(body: Any, status: int | None, passing: bool) -> None:
    failure = stated_failure(body, instead=True)
    assert failure is not None and (failure.said, failure.status, failure.passing) == ("Too bad", status, passing)
    assert stated_failure({**body, "choices": [{"message": {"content": "4"}}]}, instead=True) is None
    assert stated_failure(body) is None  # a list of models may hold any words


@pytest.mark.parametrize(
    ("said_so", "wait"),
    [
        ("Please try again in 20s.", 20.0),
        ("Please try again in 6m1.5s.", 361.5),
        ("try again in 250ms", 0.25),
        ("Please retry after 2 seconds", 2.0),
        ("Retry in 1h2m", 3720.0),
        ("Rate limited; resets in 3 minutes", 180.0),
        ("try again in 500 milliseconds", 0.5),
        ("try again in 2 hours and 3 minutes", 7380.0),
        ("Please wait 12 seconds before retrying", 12.0),
        ("Retry after: 17 s", 17.0),
        ("Retry in 0:00:12", 12.0),
        ("try again in a minute", 60.0),
        ("try again next month", None),
        ("try again later", None),
        ("in 20s all is over", None),
    ],
)
def test_waits_that_are_asked_for_in_words(said_so: str, wait: float | None) -> None:
    assert failure_of(429, json.dumps({"error": {"message": said_so}}), {}).wait == wait
    assert failure_of(429, json.dumps({"error": {"message": said_so}}), {"retry-after": "7"}).wait == 7


def test_a_gateway_tells_in_its_reply_when_a_limit_is_over() -> None:
    body = {
        "error": {"code": 429, "message": "Rate limit exceeded", "metadata": {"headers": {"X-RateLimit-Reset": "4e9"}}}
    }
    assert (failure_of(429, json.dumps(body), {}).wait or 0) > 1e8


def test_odd_waits_are_no_waits() -> None:
    assert failure_of(429, "", {"retry-after": "nan"}).wait is None
    assert failure_of(429, "", {"retry-after": "-5"}).wait == 0
    assert failure_of(429, "", {"retry-after": "inf"}).wait == float("inf")
    assert failure_of(429, json.dumps({"error": {"details": [{"retryDelay": "31s"}]}}), {}).wait == 31
