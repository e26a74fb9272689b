"""What a reply used and costs, and the name that it comes under."""

from __future__ import annotations

from typing import Any

import pytest
from replies_of_servers import NAN, read, said

from moco_core.types import Usage
from moco_pool_openai.listing import answers_for, listing_of, same_model
from moco_pool_openai.usage import used_by

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
    "what a cache holds beside the prompt": (
        {"input_tokens": 2, "output_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 1},
        (8, 3),
    ),
    "what a cache holds within the prompt": (
        {"prompt_tokens": 8, "completion_tokens": 3, "cache_read_input_tokens": 5},
        (8, 3),
    ),
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
    for form in ({"cost": {"input_cost": 0.05, "total_cost": 0.25}}, {"estimated_cost": 0.25}):
        tokens = {"prompt_tokens": 8, "completion_tokens": 3}
        assert read({**said({"content": "4"}), "usage": {**tokens, **form}}).meta == {"cost": 0.25}
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
        ("sonnet-4-5", "sonnet-4-5-20250929", True),
        ("3-5-sonnet-latest", "3-5-sonnet-20241022", True),
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


@pytest.mark.parametrize(
    ("listed", "asked", "there"),
    [
        ("sonnet-4-5-20250929", "sonnet-4-5", True),
        ("gpt-4o-2024-08-06", "gpt-4o", True),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13", False),
        ("gpt-4o-mini", "gpt-4o", False),
        ("qwen3:8b", "qwen3", False),
        ("meta/llama-3-8b", "llama-3", False),
    ],
)
def test_a_name_without_a_date_means_a_listed_version_with_one(listed: str, asked: str, there: bool) -> None:
    found = listing_of({"data": [{"id": listed}]})
    assert found is not None and found.has(asked) is there


def test_thoughts_and_what_a_server_had_read_before_stand_in_the_reply() -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 90, "completion_tokens_details": THOUGHTS}
    told = read({**said({"content": "a"}), "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 16}}})
    assert (told.meta["reasoning_tokens"], told.meta["cached_tokens"], told.usage) == (64, 16, Usage(30, 90))
    silent = read({**said({"content": "a"}), "usage": {"prompt_tokens": 30, "completion_tokens": 90}})
    assert not {"reasoning_tokens", "cached_tokens"} & set(silent.meta)
