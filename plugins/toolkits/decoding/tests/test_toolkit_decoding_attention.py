"""Heads that share keys and values: the same bits as transformers' own attention, without the copies."""

import pytest
import torch
from decoding_models import PROMPTS, TOKENIZER, engine_of
from transformers import LlamaForCausalLM
from transformers.integrations import sdpa_attention
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from moco_toolkit_decoding.attention import SHARED, _attend, share_keys
from moco_toolkit_decoding.runner import ModelRunner
from moco_toolkit_decoding.testing import tiny_llama, tiny_mistral


class OfItsOwn(LlamaForCausalLM):
    """Its module says "sdpa" by name."""


def with_groups(groups):
    module = torch.nn.Module()
    module.num_key_value_groups = groups
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 2, 7])
@pytest.mark.parametrize(("queries", "width"), [(1, 7), (1, 130), (1, 700), (5, 65), (64, 130)])
def test_every_bit_is_what_repeated_keys_and_values_give(groups, queries, width, dtype):
    torch.manual_seed(0)
    query = torch.randn(3, queries, 2 * groups, 16, dtype=dtype).transpose(1, 2)
    key, value = torch.randn(2, 3, 2, width + 9, 16, dtype=dtype)[..., :width, :]
    last = torch.tensor([queries, width, (queries + width) // 2]) - queries
    places = last[:, None] + torch.arange(queries)
    mask = torch.arange(width) <= places[:, None, :, None]
    with torch.inference_mode():
        got, _ = _attend(with_groups(groups), query, key, value, mask, scaling=0.3)
        want = torch.nn.functional.scaled_dot_product_attention(
            query, repeat_kv(key, groups), repeat_kv(value, groups), mask, scale=0.3
        )
    assert torch.equal(got, want.transpose(1, 2))


@pytest.mark.parametrize("make", [tiny_llama, tiny_mistral])
def test_ragged_rows_get_the_logits_of_before_and_no_key_is_copied(make, monkeypatch):
    logits = {}
    for shared in (False, True):
        module = make(TOKENIZER, 1)
        engine, _ = engine_of(one=module)
        if shared:
            share_keys(module)
            assert module.config._attn_implementation == SHARED
        one = engine.loaded["one"]
        runner = ModelRunner(one)
        cache = runner.cache()
        if shared:

            def copied(states, times):
                raise AssertionError("keys were repeated")

            monkeypatch.setattr(sdpa_attention, "repeat_kv", copied)
        rows = [list(one.render_input({"text": text}).ids) for text in PROMPTS]
        got = [runner.feed(cache, cache.append(len(rows)), rows)[0]]
        got += [runner.advance(cache, torch.full((len(rows),), 5 + i)) for i in range(6)]
        got += [runner.extend(cache, [0, 2], [[7, 8, 9], [4]])[0][:, 0]]
        logits[shared] = torch.cat(got)
    assert torch.equal(logits[True], logits[False])


def test_what_has_nothing_to_share_or_a_way_of_its_own_stays_as_it_is():
    alone = tiny_llama(TOKENIZER, 1, num_key_value_heads=4)
    own = OfItsOwn(tiny_llama(TOKENIZER, 1).config)
    eager = tiny_llama(TOKENIZER, 1)
    eager.set_attn_implementation("eager")
    for module in (alone, own, eager):
        before = module.config._attn_implementation
        share_keys(module)
        assert module.config._attn_implementation == before


def test_without_a_mask_and_with_gradients_transformers_own_attention_is_asked():
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, 3, 16, requires_grad=True), torch.randn(1, 2, 3, 16), torch.randn(1, 2, 3, 16)
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    for given in (mask, None):
        got, _ = _attend(with_groups(2), query, key, value, given, scaling=0.3)
        want, _ = sdpa_attention_forward(with_groups(2), query, key, value, given, scaling=0.3)
        assert torch.equal(got, want) and got.requires_grad
