"""Joint decoding against transformers' own generate and plain forwards without a cache."""

from __future__ import annotations

import gc

import pytest
import torch
from decoding_models import PROMPTS, TOKENIZER, generated, plain_logits, prompt_ids, run

from moco_core.models import Pool
from moco_core.runtime.cache import Cache
from moco_core.types import Span, Usage
from moco_toolkit_decoding import JointRecipe, Mix, UnionRecipe, open_session
from moco_toolkit_decoding.joint import JointLoop, cut_spans
from moco_toolkit_decoding.testing import LocalEngine, tiny_llama


@pytest.mark.parametrize("kind", ["prob", "logprob", "logit", "max"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
def test_copies_of_one_model_equal_generate(mixed, name, kind):
    engine, pool = mixed
    model = pool.named(name)
    mix = Mix(kind=kind, weights=(0.2, 0.3, 0.5))
    fused = pool.derive(f"copies-{name}-{kind}", JointRecipe.of(mix, [model] * 3), [model] * 3)

    async def ask(context):
        return await context.gather(context.generate(fused, p) for p in PROMPTS)

    for prompt, reply in zip(PROMPTS, run(ask), strict=True):
        assert list(reply.token_ids) == generated(engine, name, prompt)
        assert reply.usage.prompt_tokens == len(prompt_ids(engine, name, prompt))  # copies are computed once


def test_a_row_alone_equals_the_row_in_a_batch(mixed):
    _, pool = mixed
    models = [pool.named(n) for n in ("llama", "gpt2", "mistral")]

    def answers(prompts, rows, **sampling):
        recipe = JointRecipe.of(Mix(weights=(0.4, 0.3, 0.3)), models, max_rows=rows)
        fused = pool.derive("row", recipe, models)

        async def ask(context):
            replies = await context.gather(context.generate(fused, p) for p in prompts)
            return {p: (r.text, r.token_ids, r.spans, r.meta) for p, r in zip(prompts, replies, strict=True)}

        return run(ask, **sampling)

    prompts = [*PROMPTS, "and", "runs home", "the lazy dog yes"]
    for sampling in ({}, {"temperature": 0.9, "top_p": 0.95}):
        together = answers(prompts, 64, **sampling)
        assert answers(prompts, 2, **sampling) == together  # rows enter as others leave
        for p in prompts:
            assert answers([p], 1, **sampling)[p] == together[p]
        for text, ids, spans, meta in together.values():
            assert "".join(s.text for s in spans) == text or not text
            assert sum(s.tokens for s in spans) <= len(ids)
            assert sum(meta["share"].values()) == pytest.approx(1, abs=1e-5) or not text


def test_fusion_of_different_models_equals_a_plain_loop_without_cache(mixed):
    engine, pool = mixed
    models = [pool.named(n) for n in ("llama", "gpt2")]
    fused = pool.derive("pair", JointRecipe.of(Mix(kind="prob", weights=(0.6, 0.4)), models), models)

    async def ask(context):
        return await context.generate(fused, PROMPTS[0])

    ids, reply = prompt_ids(engine, "llama", PROMPTS[0]), run(ask)
    # two models read the prompt and every token
    assert reply.usage == Usage(2 * len(ids), 2 * len(reply.token_ids)) and reply.finish_reason == "length"
    for token in reply.token_ids:
        p = [plain_logits(engine, m.name, ids)[-1].softmax(-1) for m in models]
        assert token == int((0.6 * p[0] + 0.4 * p[1]).argmax())
        ids.append(token)


def test_padding_rows_are_never_chosen():
    engine = LocalEngine()
    padded = tiny_llama(TOKENIZER, 5, rows=6)
    with torch.no_grad():
        padded.lm_head.weight[-6:] *= 50  # loud padding
    models = [engine.add("plain", tiny_llama(TOKENIZER, 6), TOKENIZER), engine.add("padded", padded, TOKENIZER)]
    pool = Pool(models)
    fused = pool.derive("both", JointRecipe.of(Mix(weights=(0.5, 0.5)), models), models)

    async def ask(context):
        return await context.gather(context.generate(m, p) for m in (fused, models[1]) for p in PROMPTS)

    assert all(max(r.token_ids) < len(TOKENIZER) for r in run(ask))


def test_members_read_every_token_once_and_memory_does_not_grow(mixed, monkeypatch):
    engine = LocalEngine()
    models = [engine.add(f"m{i}", tiny_llama(TOKENIZER, i), TOKENIZER, ends=[]) for i in range(2)]
    pool = Pool(models)
    fused = pool.derive("counted", JointRecipe.of(Mix(weights=(0.5, 0.5)), models), models)
    loops, sizes = [], []

    class Watched(JointLoop):
        def __init__(self, *args):
            super().__init__(*args)
            loops.append(self)

        def _step(self, inbox):
            super()._step(inbox)
            if self.rows and len(self.rows[0].ids) in (3, 12):
                gc.collect()
                # the type is asked, not the object: lazily imported ones would wake up
                live = [t.untyped_storage() for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
                sizes.append(sum({one.data_ptr(): one.nbytes() for one in live}.values()))

    monkeypatch.setattr("moco_toolkit_decoding.joint.JointLoop", Watched)
    replies = run(lambda c: c.gather(c.generate(fused, p) for p in PROMPTS))
    assert [len(r.token_ids) for r in replies] == [16] * 3
    read = sum(len(prompt_ids(engine, "m0", p)) + 16 - 1 for p in PROMPTS)  # the last token needs no forward
    (loop,) = loops
    assert [cache.tokens for cache in loop.caches] == [read, read]
    assert len(sizes) == 2 and sizes[1] <= sizes[0]


def test_adapters_of_one_base_are_fused_like_separate_models(tmp_path):
    pytest.importorskip("moco_pool_transformers", reason="the engine is a plugin of its own")
    from moco_core.options import build
    from moco_pool_transformers.pool import Options, TransformersPool

    peft = pytest.importorskip("peft")
    base = str(tmp_path / "base")
    tiny_llama(TOKENIZER, 1).save_pretrained(base)
    TOKENIZER.save_pretrained(base)
    apart = []
    for i in range(2):
        config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"])
        with torch.random.fork_rng():
            torch.manual_seed(i)
            module = peft.get_peft_model(tiny_llama(TOKENIZER, 1), config)
            for name, p in module.named_parameters():
                if "lora_" in name:
                    p.data = torch.randn_like(p) * 0.3
        module.save_pretrained(str(tmp_path / f"lora{i}"))
        apart.append(module.merge_and_unload().eval())
    entries = [{"model": base, "adapter": str(tmp_path / f"lora{i}")} for i in range(2)]
    source = TransformersPool(build(Options, {"models": entries, "device": "cpu", "cache": str(tmp_path)}))
    pool = Pool(source.models())
    fused = pool.derive("loras", JointRecipe.of(Mix(kind="prob", weights=(0.5, 0.5)), list(pool)), list(pool))
    replies = run(lambda c: c.gather(c.generate(fused, p, raw=True) for p in PROMPTS))
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        ids = TOKENIZER.encode(prompt, add_special_tokens=False)
        for token in reply.token_ids:
            with torch.inference_mode():
                p = sum(m(torch.tensor([ids]), use_cache=False).logits[0, -1].softmax(-1) for m in apart)
            assert token == int(p.argmax())
            ids.append(token)
    assert source.engine.residency.loads == 1  # one base in memory


def test_stop_strings_cut_the_text_and_are_reported(mixed):
    _, pool = mixed
    llama = pool.named("llama")
    free = run(lambda c: c.generate(llama, PROMPTS[1]))
    stop = free.text[6:8]
    cut = run(lambda c: c.generate(llama, PROMPTS[1]), stop=(stop,))
    assert cut.text == free.text[: free.text.find(stop)]
    assert cut.finish_reason == "stop"


def test_ids_that_a_member_has_no_row_for_are_left_out():
    engine = LocalEngine()
    narrow, wide = tiny_llama(TOKENIZER, 1, rows=-3), tiny_llama(TOKENIZER, 2, rows=5)
    models = [engine.add("narrow", narrow, TOKENIZER), engine.add("wide", wide, TOKENIZER)]
    pool, size = Pool(models), len(TOKENIZER) - 3
    fused = pool.derive("both", JointRecipe.of(Mix(kind="prob", weights=(0.4, 0.6)), models), models)
    united = pool.derive("united", UnionRecipe.of(Mix(kind="prob", weights=(0.4, 0.6)), models), models)

    async def ask(context):
        session = await open_session(context, models[0], PROMPTS[0], raw=True)
        drafted = await session.draft(4)
        traced = await session.trace(drafted.ids)
        assert traced.top_ids[: len(drafted.ids)] == drafted.ids
        return await context.gather(context.generate(m, PROMPTS[0], raw=True) for m in (fused, united))

    joint, union = run(ask)
    assert union.text
    ids = prompt_ids(engine, "wide", PROMPTS[0])
    for token in joint.token_ids:
        p = [plain_logits(engine, m.name, ids)[-1][:size].softmax(-1) for m in models]
        assert token == int((0.4 * p[0] + 0.6 * p[1]).argmax())
        ids.append(token)


def test_an_end_token_that_only_another_member_has_is_no_text():
    engine = LocalEngine()
    modules = [tiny_llama(TOKENIZER, i) for i in (1, 2)]
    first, other = (engine.add(n, m, TOKENIZER, ends=[]) for n, m in zip("ab", modules, strict=True))
    pool = Pool([first, other])

    def fused(name, model):
        recipe = JointRecipe.of(Mix(kind="prob", weights=(0.5, 0.5)), [first, model])
        return pool.derive(name, recipe, [first, model])

    free = run(lambda c: c.generate(fused("free", other), PROMPTS[1]))
    at = next(i for i in range(3, 16) if free.token_ids[i] not in free.token_ids[:i])
    stop = free.token_ids[at]
    ending = engine.add("c", modules[1], TOKENIZER, ends=[stop])  # the token is an ordinary one for the first member
    reply = run(lambda c: c.generate(fused("ending", ending), PROMPTS[1]))
    assert reply.finish_reason == "eos" and reply.token_ids == free.token_ids[: at + 1]
    assert reply.text == TOKENIZER.decode(list(free.token_ids[:at]), skip_special_tokens=True)
    assert "".join(span.text for span in reply.spans) == reply.text and reply.text


def test_a_stored_reply_names_the_models_of_the_run_that_asks():
    cache = Cache(None)

    def ask(*names):
        engine = LocalEngine()
        models = [
            engine.add(n, tiny_llama(TOKENIZER, seed), TOKENIZER, fingerprint=f"weights{seed}")
            for n, seed in zip(names, (1, 2), strict=True)
        ]
        shares = []
        for kind in (JointRecipe, UnionRecipe):
            fused = Pool(models).derive("fused", kind.of(Mix(kind="prob", weights=(0.5, 0.5)), models), models)
            reply = run(lambda c, m=fused: c.generate(m, PROMPTS[0]), cache=cache)
            assert {s.model for s in reply.spans} <= set(names)
            shares.append(reply.meta["share"])
        return shares

    for a, b in zip(ask("a", "b"), ask("b", "a"), strict=True):
        assert a == {{"a": "b", "b": "a"}[name]: share for name, share in b.items()}


def test_spans_are_those_of_the_answer_where_the_reasoning_says_the_same():
    pieces = [("a", b"<think>42", 2), ("b", b"</think>", 1), ("b", b"42", 1), ("a", b" stop", 1)]
    assert cut_spans(pieces, "42") == (Span("b", "42", 1),)
