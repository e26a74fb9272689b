"""Switch generation with scripted writers, stub switchers and single models."""

from __future__ import annotations

import asyncio

import attrs
import pytest
import torch

from moco_core import Question, Sampling
from moco_core.errors import ConfigError
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_method_switch_generation.method import SwitchGeneration
from moco_method_switch_generation.options import Options
from moco_method_switch_generation.prompts import conversation, labels_of
from moco_method_switch_generation.switcher import ModelSwitcher
from moco_method_switch_generation.writing import Patch, texts_of, write
from moco_toolkit_authoring import ScriptedPool, example_questions, method_checks, run_method
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding import JointAnswer
from moco_toolkit_decoding.handover import reply_of
from moco_toolkit_decoding.testing import (
    LocalEngine,
    ScriptedModule,
    bpe_tokenizer,
    spaced_tokenizer,
    tiny_llama,
    word_tokenizer,
)

torch.set_num_threads(1)
TOKENIZER = bpe_tokenizer()
QUESTION = Question(id="q", prompt="go")
SHORT = Sampling(max_new_tokens=8)


def pool(*seeds, other=(), **settings):
    engine = LocalEngine()
    models = [engine.add(f"m{i}", tiny_llama(TOKENIZER, s), TOKENIZER, **settings) for i, s in enumerate(seeds)]
    return models + [engine.add(f"s{s}", tiny_llama(spaced_tokenizer(), s), spaced_tokenizer()) for s in other]


class Always:
    """A stub: a fixed list of writers, the last one for ever; remembers what it saw."""

    def __init__(self, *writers):
        self.writers, self.seen = writers, []

    async def choose(self, patches):
        self.seen.append(list(patches))
        return self.writers[min(len(self.seen), len(self.writers)) - 1]

    tokens = None

    def close(self):
        pass


def written(models, switcher, shared=True, limit=13, question=QUESTION, **options):
    options = {"force_ends": False, **options}

    async def main():
        async with open_state(sampling=Sampling(max_new_tokens=limit)) as state:
            context = state.context("respond", question)
            data = await write(models, question, Options(**options), shared, switcher, context)
            return reply_of(data, models)

    return asyncio.run(main())


def alone(model, limit=13, question=QUESTION):
    one = model.engine.loaded[model.name]
    ids = torch.tensor([one.render_input({"messages": [["user", question.text()]]}).ids])
    out = one.module.generate(ids, do_sample=False, max_new_tokens=limit, eos_token_id=0, pad_token_id=1)
    return one.decode(out[0, ids.shape[1] :].tolist())


def scripted(tokenizer, *paths, **settings):
    """Writers that follow a text: the longest suffix that was committed decides the next token, else the end."""
    engine = LocalEngine()

    def following(path):
        ids = tokenizer.encode("go", add_special_tokens=False)

        def scores(read):
            said = tokenizer.decode(read[len(ids) :])
            token = path.get(said, "<end>")
            return {tokenizer.eos_token_id if token == "<end>" else tokenizer.get_vocab()[token]: 10.0}

        return scores

    return [
        engine.add(f"m{i}", ScriptedModule(len(tokenizer), following(path)), tokenizer, **settings)
        for i, path in enumerate(paths)
    ]


def spelled(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))[0]


test_conformance = method_checks(
    "switch_generation",
    settings=[{"patch_size": 3}, {"patch_size": 4, "wait": True, "switcher": 0, "force_ends": False}],
    pool=lambda: pool(1, 2, 3),
    sampling=SHORT,
    questions=example_questions(2),
)


test_conformance_of_models_that_only_write_text = method_checks(
    "switch_generation",
    settings=[{"patch_size": 3}, {"patch_size": 4, "choice": "random", "answer_cue": "\nSo", "wait": True}],
    pool=lambda: pool(1, 2, 3, capabilities={"generate"}),
    sampling=Sampling(max_new_tokens=24),
    questions=example_questions(2),
)


@pytest.mark.parametrize("size", [1, 5, 50])
def test_identical_models_equal_the_single_model(size):
    models = pool(2, 2, 2)
    assert written(models, Always(0, 1, 2, 1, 0), patch_size=size).text == alone(models[0])


def test_always_one_writer_is_that_model():
    models = pool(1, 2)
    for i in range(2):
        reply = written(models, Always(i), patch_size=4)
        assert reply.text == alone(models[i])
        assert {s.model for s in reply.spans} <= {models[i].name}


def test_the_budget_is_used_exactly():
    models = pool(2, 2)  # this seed does not end by itself
    switcher = Always(0, 1, 0)
    reply = written(models, switcher, patch_size=5, limit=13)
    assert [s.tokens for s in reply.spans] == [5, 5, 3] and reply.finish_reason == "length"
    assert [len(p) for p in switcher.seen] == [0, 1, 2]


def test_words_are_not_split_at_a_seam():
    words = word_tokenizer(["inter", "view"])
    inter, view = spelled(words, "inter"), spelled(words, "view")
    models = scripted(words, {"": inter}, {"inter": view})
    reply = written(models, Always(0, 1), patch_size=1)
    assert reply.text == "interview"
    assert [(s.model, s.text) for s in reply.spans] == [("m0", "inter"), ("m1", "view")]


def test_an_end_token_ends_the_row_and_leaves_no_marker():
    words = word_tokenizer(["a", " b", " c"])
    a, b, c = (spelled(words, t) for t in ("a", " b", " c"))
    models = scripted(words, {"": a, "a": b}, {"a b": c, "a b c": "<end>"})
    switcher = Always(0, 1, 1)
    reply = written(models, switcher, patch_size=2)
    assert reply.text == "a b c" and reply.finish_reason == "eos"
    assert len(switcher.seen) == 2  # nobody was asked after the end
    assert switcher.seen == [[], [(0, "a b")]]


def test_writers_that_only_write_text_take_turns_too():
    words = word_tokenizer(["a", " b", " c", " d"])
    a, b, c, d = (spelled(words, t) for t in ("a", " b", " c", " d"))
    # patches of three tokens: the last word of a patch may be cut and is left to the next writer
    models = scripted(words, {"": a, "a": b, "a b": d}, {"a b": c, "a b c": d}, capabilities={"generate"})
    reply = written(models, Always(0, 1), shared=False, patch_size=3)
    assert reply.text == "a b c d" and reply.finish_reason == "eos"
    assert [(s.model, s.text, s.tokens) for s in reply.spans] == [("m0", "a b", 2), ("m1", " c d", 2)]


@pytest.mark.parametrize(("said", "chosen"), [("1", 1), (" 0.", 0), ("10", 2), ("none", 2), ("model 1 or 0", 1)])
def test_a_switcher_that_only_writes_text_names_a_number(said, chosen):
    pool = ScriptedPool({"s": said}, capabilities={"generate"})

    async def main():
        async with open_state() as state:
            context = state.context("respond", QUESTION)
            models = list(pool.models())
            switcher = ModelSwitcher(models[0], models * 3, QUESTION, context)
            return await switcher.choose([])

    assert asyncio.run(main()) == chosen  # unreadable: the last one


def test_waiting_goes_on_after_an_end():
    words = word_tokenizer(["a", " Wait", ","])
    models = scripted(words, {"": spelled(words, "a")}, {})
    reply = written(models, Always(0), patch_size=2, wait=True, max_waits=2)
    assert reply.text == "a Wait, Wait," and reply.meta["waits"] == 2


def test_the_ends_belong_to_the_last_of_three():
    reply = written(pool(2, 2, 2), Always(0, 1), patch_size=5, limit=13, force_ends=None)
    assert [(s.model, s.tokens) for s in reply.spans] == [("m2", 5), ("m0", 5), ("m2", 3)]
    assert [p[1] for p in reply.meta["patches"]] == ["first", "switcher", "last"]


def test_an_answer_cue_precedes_the_last_patch_even_if_it_is_the_only_one():
    models = pool(2, 2)
    assert written(models, Always(0), patch_size=50, limit=13, answer_cue="ok ").text.startswith("ok ")


def test_after_every_handover_the_caches_are_those_of_a_fresh_prefill(monkeypatch):
    models = pool(1, 2, 3)
    answers = []

    class Watched(JointAnswer):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            answers.append(self)

    monkeypatch.setattr("moco_method_switch_generation.writing.JointAnswer", Watched)

    class Looking(Always):
        async def choose(self, patches):
            for i, model in enumerate(models):
                session = answers[0].turn(i)
                ids = [*session.opened.prompt, *answers[0].ids]
                with torch.inference_mode():
                    module = model.engine.loaded[model.name].module
                    want = module(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
                got = (await session.peek(full=True)).full
                seen = torch.isfinite(got)
                assert (got - want[: len(got)])[seen].abs().max() < 1e-5 * want.abs().max()
            return await super().choose(patches)

    switcher = Looking(0, 1, 0, 2, 1)
    written(models, switcher, patch_size=3)
    assert len(switcher.seen) == 5


def test_a_model_without_a_template_reads_the_question_and_the_answer_alone():
    words = word_tokenizer(["a", " b", " c"])
    a, b, c = (spelled(words, t) for t in ("a", " b", " c"))
    models = scripted(words, {"": a, "a": b}, {"a b": c, "a b c": "<end>"})
    read = []
    for model in models:
        module = model.engine.loaded[model.name].module
        inner = module.script
        module.script = lambda ids, inner=inner: read.append(words.decode(ids)) or inner(ids)
    assert written(models, Always(0, 1), patch_size=2).text == "a b c"
    assert {"go", "goa", "goa b", "goa b c"} == set(read)


def test_different_tokenizers_exchange_whole_words_only():
    models = pool(2, other=(4,))
    reply = written(models, Always(0, 1, 0, 1), shared=False, patch_size=4, limit=16)
    assert "".join(s.text for s in reply.spans) == reply.text
    for model in models:
        assert not any(t in reply.text for t in model.engine.loaded[model.name].tokenizer.all_special_tokens)


def test_batch_equals_single_rows():
    method = SwitchGeneration(Options(patch_size=3))
    sampling = Sampling(max_new_tokens=9, temperature=0.7, top_p=0.9)
    a, b = (
        run_method(method, pool(1, 2, 3), questions=example_questions(5), sampling=sampling, in_flight=n)
        for n in (1, 8)
    )
    assert a.texts == b.texts and not a.errors


def test_the_switcher_reads_models_question_and_patches_with_their_authors():
    patches = [(1, " one"), (0, " two")]
    (asked,) = conversation(QUESTION, ["first", "second"], patches, tags=False)
    text = asked.content
    assert "0: first\n1: second" in text and text.index("[1] one") < text.index("[0] two") and "Question: go" in text
    user, begun = conversation(QUESTION, ["first", "second"], patches, tags=True)
    assert user.content.startswith("go\n\n<model 1 begins> one <model 1 ends>\n<model 0 begins> two <model 0 ends>")
    assert (begun.role, begun.content) == ("assistant", "The answer is model")


@pytest.mark.parametrize("writers", [2, 10, 11, 26, 27, 120])
def test_no_label_begins_another(writers):
    labels = labels_of(writers)
    assert len(set(labels)) == writers
    assert not any(a != b and a.startswith(b) for a in labels for b in labels)
    assert labels == [str(i) for i in range(writers)] or writers > 10


def test_the_eleventh_writer_can_be_chosen():
    """A switcher that answers with the eleventh label for certain; with numbers, "1" would win with "10"."""
    said = word_tokenizer([*"ABCDEFGHIJKL", *(f" {c}" for c in "ABCDEFGHIJKL"), "go"])
    tenth = said.encode(" K", add_special_tokens=False)[0]
    engine = LocalEngine()
    model = engine.add("s", ScriptedModule(len(said), lambda ids: {tenth: 10.0}), said)
    copies = [attrs.evolve(model, name=f"m{i}") for i in range(12)]

    async def main():
        async with open_state() as state:
            context = state.context("respond", QUESTION)
            switcher = ModelSwitcher(model, copies, QUESTION, context)
            return await switcher.choose([]), await switcher.choose([(10, "more")])

    assert asyncio.run(main()) == (10, 10)


def test_chance_takes_the_place_of_the_switcher_and_follows_the_seed():
    def writers(seed):
        method = SwitchGeneration(Options(patch_size=1, choice="random", force_ends=False))
        outcome = run_method(
            method, pool(2, 2, 2), questions=[QUESTION], sampling=Sampling(max_new_tokens=12), seed=seed
        )
        return [who for who, *_ in outcome.replies["q"].meta["patches"]]

    assert writers(0) == writers(0) != writers(1) and set(writers(0)) == {0, 1, 2}


CUED = word_tokenizer(["a", " b", " c", " So", " Wait", ","])


def cued(*paths, **settings):
    return scripted(
        CUED, *({k: spelled(CUED, v) if v else "<end>" for k, v in path.items()} for path in paths), **settings
    )


def test_the_answer_cue_is_put_once_however_often_a_model_waits():
    follow = {"": "a", "a": " b", "a b So": " c", "a b So c": "", "a b So c Wait,": " c"}
    options = {"patch_size": 6, "answer_cue": " So", "wait": True, "max_waits": 2}
    reply = written(cued(follow), Always(0), limit=9, **options)
    assert reply.text == "a b So c Wait, c" and reply.meta["waits"] == 1  # a second cue would use the budget up


def test_the_cue_is_kept_out_of_a_budget_that_it_would_use_up():
    endless = dict.fromkeys(("", *(" b" * n for n in range(1, 30))), " b")
    endless |= {f"{text} So So So{' b' * n}": " b" for text in endless for n in range(30)}
    for limit in range(1, 13):
        reply = written(cued(endless), Always(0), patch_size=4, limit=limit, answer_cue=" So So So")
        words = reply.text.split()
        assert len(words) == limit == sum(s.tokens for s in reply.spans), limit
        assert words.count("So") == (3 if limit > 3 else 0)
        if limit > 7:  # a whole patch stands behind the cue
            assert words[-7:] == ["So"] * 3 + ["b"] * 4


def test_the_switcher_reads_cues_as_part_of_the_patch_they_stand_at():
    follow = {"": "a", "a": "", "a Wait,": " b", "a Wait, b": " c", "a Wait, b c": " c", "a Wait, b c c So": " b"}
    switcher = Always(0)
    reply = written(
        cued(follow), switcher, patch_size=2, limit=9, wait=True, max_waits=1, answer_cue=" So", wait_cue=" Wait,"
    )
    assert reply.text == "a Wait, b c c So b"
    assert switcher.seen[1] == [(0, "a Wait,")]
    # every patch is told with the characters that are its own, cues included
    pieces = [reply.text[start:end] for _, _, start, end in reply.meta["patches"]]
    assert "".join(pieces) == reply.text and pieces == ["a Wait,", " b c", " c", " So b"]


def test_patches_are_told_by_the_characters_of_the_answer():
    smile = "\U0001f600".encode()
    patches = [Patch(0, "switcher", 0, 3), Patch(1, "switcher", 3, 6), Patch(0, "last", 6, 7)]
    assert texts_of(patches, b"a" + smile + b" b") == ["a", "\U0001f600 ", "b"]
    # a stop string cut the answer inside the second patch
    assert texts_of(patches, b"abcd") == ["abc", "d", ""]


def test_the_reply_counts_what_the_switcher_read():
    models = pool(1, 2, 3)
    method = SwitchGeneration(Options(patch_size=3, switcher=1, switcher_writes=False))
    cache = Cache(None)
    for _ in range(2):  # asked and from the cache
        outcome = run_method(method, models, questions=[QUESTION], sampling=SHORT, cache=cache)
        tokens = outcome.replies["q"].meta["tokens"]
        assert set(tokens) == {"m0", "m1", "m2"} and tokens["m1"]["read"] > 20 and not tokens["m1"]["written"]


def test_where_the_switcher_cannot_read_on_the_last_model_does_and_that_is_told():
    models = pool(2, 3)
    engine = models[0].engine
    room = len(engine.loaded["m0"].render_input({"messages": [["user", QUESTION.text()]]}).ids) + 12
    engine.loaded["m0"].context_length = room  # enough to write, too little to read the request to choose
    outcome = run_method(
        SwitchGeneration(Options(patch_size=4, switcher="m0")),
        models,
        questions=[QUESTION],
        sampling=Sampling(max_new_tokens=12),
    )
    reply = outcome.replies["q"]
    assert {reason for _, reason, *_ in reply.meta["patches"]} == {"fallback"}
    assert {s.model for s in reply.spans} == {"m1"} and "the last model goes on" in outcome.warnings[0]


def test_bad_input():
    with pytest.raises(ConfigError, match="patch_size"):
        build(Options, {"patch_size": 0})
    assert "no model 'x'" in SwitchGeneration(Options(switcher="x")).needs().problems(pool(1, 2))[0]
    alone_writer = SwitchGeneration(Options(switcher_writes=False))
    assert "three models" in alone_writer.needs().problems(pool(1, 2))[0]
