"""Handing an answer over: what every writer's session holds after a turn, what is counted, and sessions of text alone."""

from __future__ import annotations

import asyncio
import math

import attrs
import pytest
import torch

from moco_core.errors import CapabilityError
from moco_core.models import Pool
from moco_core.runtime.cache import Cache
from moco_core.types import Question, Sampling, Usage
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding import (
    JointAnswer,
    TextSession,
    TopGate,
    Vocabulary,
    answer_once,
    exchange_ids,
    open_session,
    role_problems,
)
from moco_toolkit_decoding.testing import (
    LocalEngine,
    ScriptedModule,
    bpe_tokenizer,
    spaced_tokenizer,
    tiny_gpt2,
    tiny_llama,
    word_tokenizer,
)

torch.set_num_threads(1)
TOKENIZER, SPACED = bpe_tokenizer(), spaced_tokenizer()
QUESTION = Question(id="q", prompt="the quick")


def pool(**modules):
    engine = LocalEngine()
    return Pool([engine.add(n, m, SPACED if n.startswith("s") else TOKENIZER) for n, m in modules.items()])


def run(work, cache=None, **sampling):
    async def main():
        async with open_state(sampling=Sampling(**{"max_new_tokens": 16, **sampling}), cache=cache) as state:
            return await work(state.context("respond", QUESTION))

    return asyncio.run(main())


# -------------------------------------------------------------------- what the sessions hold


@pytest.mark.parametrize(
    "pieces",
    [
        ("the qui", "ck brown", " fox"),
        ("emoji \U0001f600", " and \U0001f469\u200d\U0001f469\u200d\U0001f467", " end"),
        ("中文文", "本 and 日本", "語"),
        ("literal <end>", " and <pad> stay", " <unk> text"),
        ("12 + 34", " = 46\n\n", "new lines"),
    ],
)
def test_after_every_turn_all_sessions_hold_the_same_text(pieces):
    models = pool(llama=tiny_llama(TOKENIZER, 1), spaced=tiny_llama(SPACED, 2))

    async def work(context):
        sessions = await context.gather(open_session(context, m, QUESTION) for m in models)
        answer = JointAnswer(sessions, shared=False)
        fresh = [len(s.opened.prompt) for s in sessions]
        for n, piece in enumerate(pieces):
            who = n % 2
            answer.turn(who)
            ids = sessions[who].vocabulary.extend(sessions[who].ids, piece.encode())
            if ids[0] == len(sessions[who].ids):  # its own tokens, where they only add to what is there
                answer.commit(who, ids[1])
            else:
                answer.commit_text(who, piece.encode())
            for i, session in enumerate(sessions):
                session = answer.turn(i)
                assert session.data == answer.data == "".join(pieces[: n + 1]).encode()
                assert not session.vocabulary.special.intersection(session.ids)
                assert len(session.opened.prompt) == fresh[i]
                # what is cached of the text is what a fresh session would read
                other = await open_session(context, models[i], QUESTION)
                other.append_text(answer.data)
                a, b = await session.peek(full=True), await other.peek(full=True)
                if session.ids == other.ids:
                    assert torch.allclose(a.full, b.full, atol=1e-5)
        spans = answer.result()["spans"]
        assert "".join(text for _, text, _ in spans) == "".join(pieces)

    run(work)


def test_a_receivers_tokens_are_those_of_the_whole_text():
    models = pool(llama=tiny_llama(TOKENIZER, 1), spaced=tiny_llama(SPACED, 2))

    async def work(context):
        sessions = await context.gather(open_session(context, m, QUESTION) for m in models)
        answer = JointAnswer(sessions, shared=False)
        for piece in ("inter", "nation", "al rivers", " 1", "2 +"):
            answer.commit_text(0, piece.encode())
            answer.turn(1)
        assert sessions[1].ids == sessions[1].vocabulary.encode(b"international rivers 12 +")

    run(work)


def test_what_is_held_back_at_a_seam():
    models = pool(llama=tiny_llama(TOKENIZER, 1), spaced=tiny_llama(SPACED, 2))

    async def work(context):
        sessions = await context.gather(open_session(context, m, QUESTION) for m in models)
        answer = JointAnswer(sessions, shared=False)
        view = sessions[0].vocabulary
        bytewise = [view.single[bytes([b])] for b in "ok \U0001f600".encode()]

        def kept(ids, words=False):
            return answer.drafted(0, answer.whole(0, ids, words=words))

        assert kept(bytewise[:-1]) == b"ok"  # the cut character and the space before it
        assert kept(bytewise) == "ok \U0001f600".encode()
        assert kept(view.encode(b"one two thr"), words=True) == b"one two"
        assert kept(view.encode(b"single"), words=True) == b"single"

    run(work)


def test_no_part_of_a_character_is_handed_over():
    smile = "\U0001f600".encode()
    written = b"a " + smile + b" b"
    tokenizer = word_tokenizer(["x"])
    told = bytewise(tokenizer, written)
    engine = LocalEngine()

    def script(read):
        n = len(read) - 2  # the prompt is two bytes
        return {told[n] if n < len(told) else tokenizer.eos_token_id: 10.0}

    models = Pool([engine.add("m", ScriptedModule(len(tokenizer), script), tokenizer)])

    async def work(context):
        session = await open_session(context, models[0], "go", raw=True)
        answer = JointAnswer([session, session], shared=False)
        draft = await session.draft(2)
        answer.commit(0, draft.ids)
        for cut in (1, 2, 3):
            ids = (await session.draft(cut)).ids
            assert answer.whole(0, ids, words=False) == answer.whole(0, ids, words=True) == []
            whole = await answer.completed(0, ids, 8)
            assert answer.drafted(0, whole) == smile and session.ids == list(draft.ids)
            assert len(await answer.completed(0, ids, 0)) == cut  # no room
        # two tokens of one character and one of the next word: the cut is between characters
        mixed = (await session.draft(6)).ids
        assert answer.drafted(0, answer.whole(0, mixed, words=True)) == smile
        # a word of several tokens is over after some of them, but never inside a character
        assert answer.drafted(0, (await session.draft(8, words=1, word_tokens=2)).ids) == smile

    run(work)


def bytewise(tokenizer, data):
    single = {bytes(p): i for i, p in enumerate(Vocabulary(tokenizer).pieces) if len(p) == 1}
    return [single[bytes([b])] for b in data]


# -------------------------------------------------------------------- what is counted


def test_steps_are_counted_once_and_again_when_the_answer_comes_from_the_cache():
    cache = Cache(None)
    seen = []

    def ask():
        models = list(pool(llama=tiny_llama(TOKENIZER, 1), gpt2=tiny_gpt2(TOKENIZER, 2)))

        async def work(context):
            async def compute():
                sessions = await context.gather(open_session(context, m, QUESTION) for m in models)
                answer = JointAnswer(sessions, shared=True)
                for who, n in ((0, 3), (1, 4), (0, 2)):
                    draft = await answer.turn(who).draft(n, ends=frozenset())
                    answer.commit(who, draft.ids)
                answer.finish = "length"
                seen.append([len(s.opened.prompt) for s in sessions])
                answer.close()
                return answer.result()

            reply = await answer_once(context, "test", models, QUESTION, {}, compute, seeded=False)
            tallies = {name: tally for _, name, tally in context.state.ledger}
            return reply, tallies, {(c.kind, c.cached) for c in context.calls}

        return run(work, cache)

    first, again = ask(), ask()
    ((a, b),) = seen  # written once
    # 0 writes 3 and 2 and reads the 4 of the other; 1 writes 4 and reads the first 3
    expected = {"llama": Usage(a + 4, 5), "gpt2": Usage(b + 3, 4)}
    for told, cached in ((first, 0), (again, 1)):
        assert {name: tally.usage for name, tally in told[1].items()} == expected
        assert [(tally.calls, tally.cached) for tally in told[1].values()] == [(1, cached)] * 2
        assert told[2] == {("step", bool(cached))}
    assert first[0] == again[0]
    assert first[0].meta["tokens"]["llama"] == {"read": a + 4, "written": 5}


def test_forks_are_counted_with_their_session():
    models = pool(llama=tiny_llama(TOKENIZER, 1))

    async def work(context):
        session = await open_session(context, models[0], QUESTION)
        other = session.fork()
        await other.draft(3, ends=frozenset())
        other.close()
        assert not list(context.state.ledger)
        session.close()
        session.close()
        return context.state.ledger.of("respond", "llama").usage == Usage(len(session.opened.prompt), 3)

    assert run(work)


# -------------------------------------------------------------------- models that only write text


WORDS = word_tokenizer(["a", " b", " c", " d", " e"])
SAYS = ["a", " b", " c", " d", " e"]


def chain(probabilities, **settings):
    """A model that says "a b c d e" with these probabilities, and then ends."""
    vocabulary = WORDS.get_vocab()
    told = [WORDS.encode(t, add_special_tokens=False)[0] for t in SAYS]

    def script(ids):
        said = WORDS.decode(ids)[2:].removeprefix("!")
        n = next((n for n in range(5) if "".join(SAYS[:n]) == said), 5)
        token, p = (told[n], probabilities[n]) if n < 5 else (WORDS.eos_token_id, 0.9)
        rival = next(t for t in told if t != token)
        return {**dict.fromkeys(vocabulary.values(), -60.0), token: math.log(p), rival: math.log(1 - p)}

    engine = LocalEngine()
    return engine.add("m", ScriptedModule(len(WORDS), script), WORDS, **settings)


@pytest.mark.parametrize("chunk", [1, 2, 16])
def test_gated_text_is_what_gated_steps_write(chunk):
    gate = TopGate(0.7)
    model = chain((0.9, 0.8, 0.6, 0.9, 0.9), capabilities={"generate", "logprobs"})
    stepping = chain((0.9, 0.8, 0.6, 0.9, 0.9))

    async def work(context):
        out = []
        for one in (model, stepping):
            session = await open_session(context, one, "go", raw=True)
            assert isinstance(session, TextSession) == (one is model)
            first = await session.draft(16, gate=gate, chunk=chunk, commit=True)
            seen = await session.peek()
            second = await session.draft(16, gate=gate, free=1, chunk=chunk, commit=True)
            out.append(
                (
                    session.text,
                    session.n_tokens,
                    first.reason,
                    second.reason,
                    session.piece(seen.ids[0]),
                    round(seen.logprobs[0], 5),
                )
            )
        return out

    texted, stepped = run(work)
    assert texted == stepped == ("a b c d e", 5, "gate", "end", b" c", round(math.log(0.6), 5))


def test_words_of_text():
    model = chain((0.9,) * 5, capabilities={"generate"})

    async def work(context):
        session = await open_session(context, model, "go", raw=True)
        two = await session.draft(16, words=2, word_tokens=8, commit=True)
        assert (session.text, two.reason, two.words) == ("a b", "word", 2)
        rest = await session.draft(16, words=9, word_tokens=8)
        assert rest.reason == "end" and session.weigh(rest.ids) == 3
        here = session.mark()
        session.append_text(" and more")
        session.rollback(here)
        assert session.text == "a b"
        with pytest.raises(CapabilityError, match="log-probabilities"):
            await (await open_session(context, silent(model), "go", raw=True)).draft(4, gate=TopGate(0.5))

    run(work)


def silent(model):
    """The same model behind a server that keeps its log-probabilities to itself."""
    engine = model.engine

    class Silent(type(engine)):
        def serve(self, model, inbox):
            super().serve(model, Quiet(inbox))

    class Quiet:
        def __init__(self, inbox):
            self.inbox = inbox

        def __getattr__(self, name):
            return getattr(self.inbox, name)

        def resolve(self, results):
            self.inbox.resolve([(c, attrs.evolve(r, token_logprobs=())) for c, r in results])

    engine_of_it = Silent()
    loaded = engine.loaded["m"]
    return engine_of_it.add("silent", loaded.module, WORDS, capabilities={"generate"})


def test_roles_and_what_they_exchange():
    models = pool(llama=tiny_llama(TOKENIZER, 1), other=tiny_llama(TOKENIZER, 2), spaced=tiny_llama(SPACED, 2))
    assert exchange_ids(models[:2]) and not exchange_ids(models)
    engine = LocalEngine()
    texts = [engine.add(n, tiny_llama(TOKENIZER, 1), TOKENIZER, capabilities={"generate"}) for n in "ab"]
    assert not exchange_ids(texts)
    assert role_problems(models, {"writer": 0, "reader": "other"}) == []
    assert "reader: 'llama' is the writer model too" in role_problems(models, {"writer": 0, "reader": "llama"})[0]
    assert "no model 'x'" in role_problems(models, {"writer": 0, "reader": "x"})[0]
