"""Joint decoding and step sessions against transformers' own generate and plain forwards without a cache."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch

from moco_core.context import Context
from moco_core.models import Pool
from moco_core.testing.harness import open_session as open_run
from moco_core.types import Sampling
from moco_toolkit_decoding import HeadGate, JointRecipe, Mix, TopGate, UnionRecipe, Vocabulary, open_session
from moco_toolkit_decoding.slab import Slab
from moco_toolkit_decoding.steps import StepServer
from moco_toolkit_decoding.testing import (
    LocalEngine,
    bpe_tokenizer,
    spaced_tokenizer,
    tiny_gpt2,
    tiny_llama,
    tiny_mistral,
)

torch.set_num_threads(1)
PROMPTS = ("the quick", "fox", "international rivers 12 + 34 = yes no yes no and runs home over the lazy dog")
TOKENIZER, SPACED = bpe_tokenizer(), spaced_tokenizer()


def engine_of(**modules):
    engine = LocalEngine()
    models = [engine.add(n, m, SPACED if n.startswith("s") else TOKENIZER) for n, m in modules.items()]
    return engine, Pool(models)


@pytest.fixture(scope="module")
def mixed():
    return engine_of(
        llama=tiny_llama(TOKENIZER, 1),
        gpt2=tiny_gpt2(TOKENIZER, 2),
        mistral=tiny_mistral(TOKENIZER, 3),
        spaced=tiny_llama(SPACED, 4),
    )


def run(work, **sampling):
    async def main():
        async with open_run(sampling=Sampling(**{"max_new_tokens": 16, **sampling})) as session:
            return await work(Context(session, phase="respond"))

    return asyncio.run(main())


def prompt_ids(engine, name, text):
    return list(engine.loaded[name].render_input({"text": text}).ids)


def plain_logits(engine, name, ids):
    """The oracle: one forward of everything, no cache, no padding."""
    with torch.inference_mode():
        return engine.loaded[name].module(torch.tensor([ids]), use_cache=False).logits[0].float()


def generated(engine, name, text, n=16):
    one = engine.loaded[name]
    ids = torch.tensor([prompt_ids(engine, name, text)])
    out = one.module.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=n,
        pad_token_id=1,
        eos_token_id=sorted(one.end_ids),
    )
    return out[0, ids.shape[1] :].tolist()


def model_tokenizer(engine, model):
    return engine.loaded[model.name].tokenizer


# -------------------------------------------------------------------- the slab


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
def test_ragged_rows_rollback_and_reuse_equal_fresh_forwards(mixed, name):
    engine, _ = mixed
    slab = Slab(engine.loaded[name], rows=2, slots=8)
    g = random.Random(0)
    rows = {r: [] for r in range(4)}
    for _ in range(6):
        chosen = g.sample(range(4), g.randint(1, 4))
        for r in chosen:
            if rows[r] and g.random() < 0.4:  # drop some tokens, as after a rejected draft
                rows[r] = rows[r][: g.randint(1, len(rows[r]))]
                slab.crop(r, len(rows[r]))
        chunks = [[g.randrange(2, 300) for _ in range(g.choice([1, 2, 7]))] for _ in chosen]
        slab.reserve(4, 0)
        logits, hidden = slab.feed(chosen, chunks, hidden=True)
        for i, r in enumerate(chosen):
            rows[r] += chunks[i]
            expected = plain_logits(engine, name, rows[r])[-1]
            assert (logits[i] - expected).abs().max() < 1e-5 * expected.abs().max().clamp(min=1)
        assert hidden.shape == (len(chosen), 32)
    slab.copy_row(0, 5)
    rows[5] = [*rows[0], 9]
    logits, _ = slab.feed([5], [[9]])
    assert torch.allclose(logits[0], plain_logits(engine, name, rows[5])[-1], atol=1e-4)


def test_long_prompts_are_read_in_pieces(mixed, monkeypatch):
    engine, _ = mixed
    monkeypatch.setattr("moco_toolkit_decoding.slab.CHUNK", 8)
    g = random.Random(1)
    chunks = [[g.randrange(2, 300) for _ in range(n)] for n in (37, 5, 20)]
    logits, _ = Slab(engine.loaded["llama"]).feed([0, 1, 2], chunks)
    for i, ids in enumerate(chunks):
        assert torch.allclose(logits[i], plain_logits(engine, "llama", ids)[-1], atol=1e-4)
    slab = Slab(engine.loaded["llama"])
    pieces = {i: [] for i in range(3)}
    for i, part, _ in slab.feed_all([0, 1, 2], chunks):
        pieces[i].append(part)
    for i, ids in enumerate(chunks):
        assert torch.allclose(torch.cat(pieces[i]), plain_logits(engine, "llama", ids), atol=1e-4)


# -------------------------------------------------------------------- joint decoding


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

    ids = prompt_ids(engine, "llama", PROMPTS[0])
    for token in run(ask).token_ids:
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


def test_stop_strings_cut_the_text_and_are_reported(mixed):
    _, pool = mixed
    llama = pool.named("llama")
    free = run(lambda c: c.generate(llama, PROMPTS[1]))
    stop = free.text[6:8]
    cut = run(lambda c: c.generate(llama, PROMPTS[1]), stop=(stop,))
    assert cut.text == free.text[: free.text.find(stop)]
    assert cut.finish_reason == "stop"


def test_union_of_copies_is_the_model_and_scores_are_invariant_to_batching(mixed):
    engine, pool = mixed
    spaced, llama = pool.named("spaced"), pool.named("llama")
    for model in (spaced, llama):
        copies = pool.derive(
            f"union-{model.name}", UnionRecipe.of(Mix(kind="prob", weights=(0.5, 0.5)), [model] * 2), [model] * 2
        )
        special = engine.loaded[model.name].tokenizer.all_special_ids
        compared = 0
        for prompt in (*PROMPTS, "and runs", "yes no", "12 + 34"):
            ids = [t for t in generated(engine, model.name, prompt, 8) if t not in engine.loaded[model.name].end_ids]
            if set(ids) & set(special):
                continue  # special tokens are no strings: they cannot be fused
            text = run(lambda c, m=copies, p=prompt: c.generate(m, p), max_new_tokens=8).text
            assert text == b"".join(Vocabulary(model_tokenizer(engine, model)).pieces[t] for t in ids).decode(
                "utf-8", "replace"
            ).removeprefix(" " if model is spaced else "")
            compared += 1
        assert compared
    both = UnionRecipe.of(Mix(kind="prob", weights=(0.5, 0.5)), [llama, spaced])
    fused = pool.derive("union-both", both, [llama, spaced])
    together = run(lambda c: c.gather(c.generate(fused, p) for p in PROMPTS))
    alone = [run(lambda c, p=p: c.generate(fused, p)) for p in PROMPTS]
    assert [r.text for r in together] == [r.text for r in alone]


# -------------------------------------------------------------------- sessions


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "spaced"])
def test_looking_rolling_back_and_forking(mixed, name):
    engine, pool = mixed
    model = pool.named(name)

    async def work(context):
        session = await open_session(context, model, PROMPTS[0])

        async def agrees():
            seen = await session.peek(full=True)
            expected = plain_logits(engine, name, [*session.opened.prompt, *session.ids])[-1].log_softmax(-1)
            size = session.vocabulary.size
            got = seen.full - seen.full[5]
            assert (got - (expected - expected[5])[:size]).abs()[seen.full > -1e9].max() < 1e-4
            return seen.full

        first = await agrees()
        mark = session.mark()
        session.append_text("brown fox jumps ")
        await agrees()
        session.append_text("over")
        await agrees()
        other = session.fork()
        other.append_text(" and away")
        session.rollback(mark)
        assert torch.allclose(await agrees(), first, atol=1e-5)
        assert other.text == "brown fox jumps over and away"
        traced = await session.score("the lazy dog")
        ids = session.vocabulary.encode(b"the lazy dog")
        logp = plain_logits(engine, name, [*session.opened.prompt, *ids]).log_softmax(-1)
        start = len(session.opened.prompt) - 1
        expected = [float(logp[start + i, t]) for i, t in enumerate(ids)]
        assert traced.logprobs == pytest.approx(expected, abs=1e-4)
        assert len(traced.top_ids) == len(ids) + 1
        assert (await session.hidden()).shape == (32,)
        session.close()

    run(work)


def test_drafts_stop_at_gates_words_and_ends(mixed):
    engine, pool = mixed
    model = pool.named("llama")

    async def work(context):
        session = await open_session(context, model, PROMPTS[2])
        whole = await session.draft(16)
        logp, ids = [], list(session.opened.prompt)
        for token in whole.ids:
            logp.append(float(plain_logits(engine, "llama", ids)[-1].log_softmax(-1).max()))
            ids.append(token)
        assert whole.tops == pytest.approx(logp, abs=1e-4)
        import math

        least = sorted(math.exp(x) for x in whole.tops)[len(whole.tops) // 2]
        gated = await session.draft(16, gate=TopGate(least))
        n = next((i for i, x in enumerate(whole.tops) if math.exp(x) < least), len(whole.ids))
        assert gated.ids == whole.ids[:n]
        free = await session.draft(16, gate=TopGate(1.01), free=3)
        assert free.ids == whole.ids[:3] and free.reason == "gate"
        head = torch.zeros(32)
        assert (await session.draft(5, gate=HeadGate(head, (0.4,)))).reason == "gate"
        assert (await session.draft(5, gate=HeadGate(head, (0.5,)))).ids == whole.ids[:5]  # strictly above
        assert (await session.draft(16, chunk=3)).ids == whole.ids
        again = await session.draft(16, words=2, word_tokens=4)
        assert again.ids == whole.ids[: len(again.ids)] and len(again.ids) <= 8

    run(work)


def test_concurrent_sessions_equal_sessions_one_by_one(mixed):
    _, pool = mixed
    llama, spaced = pool.named("llama"), pool.named("spaced")
    settings = Sampling(temperature=0.8, top_k=20)

    async def story(context, n):
        a, b = await context.gather(open_session(context, m, PROMPTS[n % 3]) for m in (llama, spaced))
        generator = random.Random(n)
        told = b""
        for turn in range(3):
            session = (a, b)[(n + turn) % 2]
            session.append_text(told[len(session.data) :])
            await session.draft(2 + n % 4, sampling=settings, generator=generator, commit=True)
            told = session.data
        return told

    together = run(lambda c: c.gather(story(c, n) for n in range(9)))
    assert together == [run(lambda c, n=n: story(c, n)) for n in range(9)]


def test_sessions_survive_eviction_and_lost_caches(mixed):
    engine, pool = mixed
    llama = pool.named("llama")

    async def work(context, limit):
        engine.loaded["llama"].scratch.clear()
        sessions = await context.gather(open_session(context, llama, p) for p in PROMPTS * 2)
        out = []
        for turn in range(3):
            server = next((v for v in engine.loaded["llama"].scratch.values() if isinstance(v, StepServer)), None)
            if server is not None:
                server.max_rows = limit
            out.append([d.ids for d in await context.gather(s.draft(3, commit=True) for s in sessions)])
            if turn == 1:
                engine.loaded["llama"].scratch.clear()
        return out

    assert run(lambda c: work(c, 2)) == run(lambda c: work(c, 256))


def test_a_session_feeds_each_token_once(mixed):
    engine, pool = mixed

    async def work(context):
        engine.loaded["gpt2"].scratch.clear()
        session = await open_session(context, pool.named("gpt2"), PROMPTS[2])
        await session.draft(10, commit=True, ends=frozenset())
        server = next(v for v in engine.loaded["gpt2"].scratch.values() if isinstance(v, StepServer))
        # the last chosen token needs no forward
        assert server.slab.tokens == len(session.opened.prompt) + 10 - 1

    run(work)


def test_stragglers_hand_out_what_they_have_and_join_the_others_again(mixed):
    engine, pool = mixed
    llama = pool.named("llama")

    async def work(context):
        engine.loaded["llama"].scratch.clear()
        engine.loaded["llama"].forwards = 0
        sessions = await context.gather(open_session(context, llama, p) for p in PROMPTS)
        lengths = (2, 2, 12)
        drafts = await context.gather(s.draft(n, chunk=16) for s, n in zip(sessions, lengths, strict=True))
        calls = [s.counter.calls for s in sessions]
        words = await context.gather(s.draft(n, words=n) for s, n in zip(sessions, (1, 1, 3), strict=True))
        return [d.ids for d in drafts], calls, [d.ids for d in words]

    ids, calls, words = run(work)
    for prompt, one, n in zip(PROMPTS, ids, (2, 2, 12), strict=True):
        assert list(one) == generated(engine, "llama", prompt, n)
    assert calls == [1, 1, 2]  # the long one was cut once, when the two others had finished

    async def alone(context):
        sessions = [await open_session(context, llama, p) for p in PROMPTS]
        return [(await s.draft(n, words=n)).ids for s, n in zip(sessions, (1, 1, 3), strict=True)]

    assert words == run(alone)
