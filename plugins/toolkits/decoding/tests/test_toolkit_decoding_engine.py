"""Step sessions against plain forwards without a cache."""

from __future__ import annotations

import random

import pytest
import torch
from decoding_models import PROMPTS, generated, plain_logits, run

from moco_core.types import Sampling
from moco_toolkit_decoding import HeadGate, TopGate, open_session
from moco_toolkit_decoding.steps import StepServer

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


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "spaced"])
def test_text_in_random_cuts_gives_the_logits_of_the_whole(mixed, name):
    _, pool = mixed
    data = "the quick fox 12 + 34 = \U0001f600 \u4e2d\u6587 runs  home\n\nand naïve café".encode()

    async def work(context):
        whole = await open_session(context, pool.named(name), PROMPTS[0])
        whole.append_text(data)
        want = (await whole.peek(full=True)).full
        for seed in range(4):
            g = random.Random(seed)
            places = sorted(g.sample(range(1, len(data)), 5))
            cut = await open_session(context, pool.named(name), PROMPTS[0])
            for a, b in zip([0, *places], [*places, len(data)], strict=True):
                cut.append_text(data[a:b])
                await cut.peek()  # what is read now may have to be read again at the next seam
            assert cut.ids == whole.ids
            got = (await cut.peek(full=True)).full
            assert (got - want)[want > -1e9].abs().max() < 1e-5 * want[want > -1e9].abs().max()

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


def test_what_is_counted_is_what_the_model_read(mixed):
    engine, pool = mixed

    async def work(context):
        engine.loaded["gpt2"].scratch.clear()
        session = await open_session(context, pool.named("gpt2"), PROMPTS[2])
        prompt = len(session.opened.prompt)

        def fed():
            server = next(v for v in engine.loaded["gpt2"].scratch.values() if isinstance(v, StepServer))
            return server.cache.tokens

        counter = session.counter
        assert (counter.read, counter.written) == (0, 0)  # nothing is read before somebody looks
        await session.draft(10, commit=True, ends=frozenset())
        assert (counter.read, counter.written) == (prompt, 10)
        assert fed() == prompt + 10 - 1  # the last chosen token needs no forward yet
        here = session.mark()
        for text in (" brown", " brown fox", " lazy"):  # looked at and rolled back: each adds to what the others share
            session.append_text(text)
            await session.peek()
            session.rollback(here)
        brown, fox, lazy = (
            len(session.vocabulary.extend(session.ids, t)[1]) for t in (b" brown", b" brown fox", b" lazy")
        )
        # nothing in front of the seam was replaced, and the first two have their first tokens in common
        assert session.vocabulary.extend(session.ids, b" brown fox")[0] == 10
        assert (counter.read, counter.written) == (prompt + fox + lazy, 10)
        assert fed() == prompt + 10 + fox + lazy
        await session.trace(
            session.ids, 4
        )  # all of it is in the cache, but scores are not: the last six are read again
        assert counter.read == prompt + fox + lazy + 6
        other = session.fork()
        await other.draft(4, ends=frozenset())
        assert (counter.read, counter.written) == (prompt + fox + lazy + 6, 14)
        assert brown < fox

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
