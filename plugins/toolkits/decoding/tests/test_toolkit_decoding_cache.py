"""The key/value cache and its runner against plain forwards without a cache."""

from __future__ import annotations

import random

import pytest
import torch
from decoding_models import SPACED, TOKENIZER, engine_of, plain_logits

from moco_core.errors import CapabilityError
from moco_toolkit_decoding.kv_cache import KVCache, LayerShape, bucket
from moco_toolkit_decoding.testing import tiny_gpt2, tiny_llama


@pytest.mark.parametrize("plain_head", [True, False])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
def test_ragged_rows_rolled_back_copied_and_dropped_equal_fresh_forwards(mixed, name, plain_head):
    engine, _ = mixed
    runner = engine.loaded[name].runner
    cache = runner.cache()
    engine.loaded[name].probe.plain_head = plain_head  # both ways to the logits of a prompt
    g = random.Random(0)
    rows = [[] for _ in cache.append(5)]
    for turn in range(12):
        chosen = g.sample(range(len(rows)), g.randint(1, len(rows)))
        for r in chosen:
            if rows[r] and g.random() < 0.4:  # drop some tokens, as after a rejected draft
                rows[r] = rows[r][: g.randint(0, len(rows[r]))]
                cache.rollback(r, len(rows[r]))
        chunks = [[g.randrange(2, 300) for _ in range(g.choice([1, 2, 7, 30]))] for _ in chosen]
        if turn % 3 == 2:
            pieces = {}
            for i, logits, hidden in runner.feed_all(cache, chosen, chunks, hidden=True):
                pieces.setdefault(i, []).append((logits, hidden))
            scores = [torch.cat([x for x, _ in pieces[i]]) for i in range(len(chosen))]
            states = [torch.cat([x for _, x in pieces[i]]) for i in range(len(chosen))]
        else:
            logits, hidden = runner.feed(cache, chosen, chunks, hidden=True)
            scores, states = logits[:, None], hidden[:, None]
        for i, r in enumerate(chosen):
            rows[r] += chunks[i]
            want = plain_logits(engine, name, rows[r])[-len(scores[i]) :]
            assert (scores[i] - want).abs().max() < 1e-5 * want.abs().max().clamp(min=1)
            head = engine.loaded[name].module.get_output_embeddings().weight.detach()
            assert (states[i] @ head.T - want).abs().max() < 1e-5 * want.abs().max().clamp(min=1)
        if turn == 4:  # a row leaves from the middle, another is copied
            rows = [rows[i] for i in cache.drop([1])]
            cache.copy([0], cache.append(1))
            rows.append(list(rows[0]))
        assert cache.lengths == [len(r) for r in rows]


def test_rows_leave_and_the_last_ones_take_their_places():
    engine, _ = engine_of(m=tiny_llama(TOKENIZER, 1))
    runner = engine.loaded["m"].runner
    cache = runner.cache()
    rows = [[3 + i] * (i + 1) for i in range(6)]
    runner.prefill(cache, cache.append(6), rows)
    assert cache.drop([0, 3]) == [4, 1, 2, 5]
    assert cache.lengths == [5, 2, 3, 6]
    logits = runner.advance(cache, torch.tensor([9, 10, 11, 12]))
    for row, token, got in zip([rows[i] for i in (4, 1, 2, 5)], (9, 10, 11, 12), logits, strict=True):
        assert torch.allclose(got, plain_logits(engine, "m", [*row, token])[-1], atol=1e-5)


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 3, 5]])
@pytest.mark.parametrize("rows", [[0, 1, 2], [1, 2], [2, 0, 1]])
@torch.inference_mode()
def test_tokens_of_rows_of_one_length_are_stored_as_those_of_any_rows(lengths, rows):
    g = torch.Generator().manual_seed(0)
    before, new = torch.randn(3, 2, 5, 4, generator=g), torch.randn(len(rows), 2, 2, 4, generator=g)
    stored = []
    for even in (False, True):
        cache = KVCache([LayerShape(heads=2, key_width=4, value_heads=2, value_width=4)], torch.float32, torch.device("cpu"))
        cache.append(3)
        cache.reserve(3, 8)
        cache.aim(range(3), None, 5)
        cache.update(before, -before, 0)
        cache.grow(range(3), lengths)
        columns = torch.tensor([[lengths[r], lengths[r] + 1] for r in rows])
        cache.aim(rows, columns, 7, even=even)
        attended = cache.update(new, -new, 0)
        stored.append([*attended, *(part for r in range(3) for pair in cache.extract(r, 0, 8) for part in pair)])
        for i, r in enumerate(rows):
            assert torch.equal(attended[0][i, :, lengths[r] : lengths[r] + 2], new[i])
            assert torch.equal(attended[1][i, :, : lengths[r]], -before[r, :, : lengths[r]])
    assert all(torch.equal(a, b) for a, b in zip(*stored, strict=True))


def test_long_prompts_are_read_in_pieces(mixed, monkeypatch):
    engine, _ = mixed
    monkeypatch.setattr("moco_toolkit_decoding.runner.CHUNK", 8)
    monkeypatch.setattr("moco_toolkit_decoding.runner.SCORE_TOKENS", 16)
    g = random.Random(1)
    chunks = [[g.randrange(2, 300) for _ in range(n)] for n in (37, 5, 20)]
    for name in ("llama", "mistral"):
        runner = engine.loaded[name].runner
        cache = runner.cache()
        logits, _ = runner.feed(cache, cache.append(3), chunks)
        for i, ids in enumerate(chunks):
            assert torch.allclose(logits[i], plain_logits(engine, name, ids)[-1], atol=1e-4)
        pieces = {i: [] for i in range(3)}
        for i, part, _ in runner.feed_all(cache, cache.append(3), chunks):
            pieces[i].append(part)
        for i, ids in enumerate(chunks):
            assert torch.allclose(torch.cat(pieces[i]), plain_logits(engine, name, ids), atol=1e-4)


def test_padding_beside_a_row_at_the_end_of_its_context_asks_for_no_position_beyond_it():
    engine, _ = engine_of(m=tiny_gpt2(TOKENIZER, 1))  # 512 learned positions
    runner = engine.loaded["m"].runner
    cache = runner.cache()
    rows = [[5] * 500, [6] * 3]
    runner.prefill(cache, cache.append(2), rows)
    chunks = [[7] * 12, [8] * 40]
    for i, logits, _ in runner.feed_all(cache, range(2), chunks):
        assert torch.allclose(logits, plain_logits(engine, "m", rows[i] + chunks[i])[len(rows[i]) :], atol=1e-4)
    cache.rollback(0, 500)
    cache.rollback(1, 3)
    logits, _ = runner.feed(cache, range(2), chunks)
    assert torch.allclose(logits[0], plain_logits(engine, "m", rows[0] + chunks[0])[-1], atol=1e-4)


def test_groups_of_rows_waste_little_on_padding():
    groups = list(bucket([[0] * n for n in (900, 3, 1000, 4, 5000, 1)]))
    assert groups == [[4], [2, 0], [3, 1, 5]]


def test_an_architecture_with_other_state_is_refused_in_one_line():
    from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

    bloom = BloomConfig(vocab_size=len(TOKENIZER), hidden_size=32, n_layer=1, n_head=2)
    mamba = MambaConfig(vocab_size=len(SPACED), hidden_size=32, state_size=4, num_hidden_layers=1)
    engine, _ = engine_of(bloom=BloomForCausalLM(bloom), spaced=MambaForCausalLM(mamba))
    for name, said in (("bloom", "BloomForCausalLM"), ("spaced", "MambaForCausalLM")):
        with pytest.raises(CapabilityError, match=f"model '{name}' cannot work token by token: {said} keeps") as caught:
            engine.loaded[name].runner.cache()
        assert "\n" not in str(caught.value)
