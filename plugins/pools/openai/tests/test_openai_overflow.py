"""A prompt that is longer than its model: told from other refusals, whatever words a server finds for it."""

from __future__ import annotations

import json

import pytest

from moco_pool_openai.failures import failure_of

TOO_LONG = [
    "This model's maximum prompt length is 1000 but the request contains 1200 tokens.",
    "Input length (1200 tokens) exceeds the maximum allowed length (1000 tokens). Use a shorter input.",
    "input length and `max_tokens` exceed context limit: 900 + 200 > 1000",
    "`inputs` tokens + `max_new_tokens` must be <= 1000. Given: 900 `inputs` tokens and 200 `max_new_tokens`",
    "Input validation error: `inputs` must have less than 1000 tokens. Given: 1200",
    "Range of input length should be [1, 1000]",
    "Prompt exceeds max length",
    "prompt length (1200) exceeds max input length (1000)",
    "Request prompt has 1200 tokens in total, larger than the model input length limit 1000.",
    "The total number of tokens (prompt + completion) must be at most 1000",
    "Please reduce the length of the messages or completion.",
    "Your prompt has 1200 tokens, the model takes at most 1000",
    "The input token count (1200) exceeds the maximum number of tokens allowed (1000).",
    "Your request exceeded model token limit: 1000",
    "Token limit exceeded: 1200 > 1000",
    "Number of tokens in the prompt (1200) is larger than n_ctx (1000)",
    "Sequence length 1200 is larger than max_position_embeddings 1000",
    "max_model_len 1000 is smaller than the prompt's 1200 tokens",
    "The prompt (1200 tokens) does not fit into the cache",
    "too many tokens: size limit exceeded by 200 tokens",
    "The decoder prompt (length 1200) is longer than the maximum model length of 1000.",
    "输入长度超过模型最大长度限制",
]
OTHERWISE = [
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
    "max_tokens must be at most 8192 for this input",
    "Input validation error: `max_new_tokens` must be <= 4096. Given: 5000",
    "Input validation error: `top_p` must be > 0.0 and < 1.0",
    "Invalid 'max_output_tokens': integer above maximum value. Expected a value <= 16384",
    "Request too large on tokens per minute (TPM): Limit 6000, Requested 7000",
    "The number of stop sequences exceeds the maximum of 4",
    "image input is too large",
    "Conversation roles must alternate user/assistant",
    "'messages' must contain the word 'json' in some form",
    "logit_bias keys should be token ids",
    "The prompt is empty",
    "Failed to tokenize prompt",
]


@pytest.mark.parametrize("said", TOO_LONG)
def test_a_prompt_that_does_not_fit_is_told_in_many_words(said: str) -> None:
    failure = failure_of(400, json.dumps({"error": {"message": said}}), {})
    assert failure.too_long and not failure.passing


@pytest.mark.parametrize("said", OTHERWISE)
def test_other_refusals_do_not_call_the_prompt_too_long(said: str) -> None:
    assert not failure_of(400, json.dumps({"error": {"message": said}}), {}).too_long


def test_a_limit_of_tokens_per_minute_passes() -> None:
    body = json.dumps(
        {"error": {"message": "Request too large on tokens per minute: limit 6000", "code": "rate_limit_exceeded"}}
    )
    for status in (413, 429):
        assert not failure_of(status, body, {}).too_long
