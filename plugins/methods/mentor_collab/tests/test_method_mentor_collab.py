"""MentorCollab against single models, scripted models, and the probe's own checks."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch

from moco_core import ConfigError, Example, Question, Sampling
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_core.types import Answer
from moco_method_mentor_collab import fitting
from moco_method_mentor_collab.method import MentorCollab
from moco_method_mentor_collab.options import Options
from moco_method_mentor_collab.probe import Probe, train_probe
from moco_method_mentor_collab.prompts import Segment, choice, consultation
from moco_method_mentor_collab.verifying import TIE, features, verifier_of
from moco_method_mentor_collab.writing import Writing
from moco_toolkit_authoring import example_questions, examples, method_checks, run_method
from moco_toolkit_authoring.harness import open_session
from moco_toolkit_authoring.toy import LastWord
from moco_toolkit_decoding import Vocabulary
from moco_toolkit_decoding import open_session as open_step
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
TOKENIZER, SPACED = bpe_tokenizer(), spaced_tokenizer()
GO = Question(id="q", prompt="go!")
QUESTION = Question(id="q", prompt="the quick brown [Two ways to go on]\nOption A: x\nOption B: y")


def pool(*seeds, other=(), **settings):
    engine = LocalEngine()
    models = [engine.add(f"m{i}", tiny_llama(TOKENIZER, s), TOKENIZER, **settings) for i, s in enumerate(seeds)]
    return models + [engine.add(f"s{s}", tiny_llama(SPACED, s), SPACED) for s in other]


def written(models, answer, shared=True, limit=14, seed=0, question=QUESTION, **options):
    """Write with a verifier stub that always says ``answer`` (True: the mentor); None is the prompt verifier."""
    calls = []

    async def stub(session, a, b):
        calls.append((a, b))
        return answer

    async def main():
        async with open_session(sampling=Sampling(max_new_tokens=limit), seed=seed) as session:
            context = session.context("respond", question)
            settings = Options(**options)
            writing = await Writing.open(models, question, settings, shared, context)
            verifier = verifier_of(settings, None) if answer is None else stub
            return reply_of(await writing.run(verifier), models)

    return asyncio.run(main()), calls


def shown(a, b, wording="request"):
    return consultation(a.shown(), b.shown(), wording)


def alone(model, limit=14):
    one = model.engine.loaded[model.name]
    ids = torch.tensor([one.render_input({"messages": [["user", QUESTION.text()]]}).ids])
    out = one.module.generate(ids, do_sample=False, max_new_tokens=limit, eos_token_id=0, pad_token_id=1)
    return one.decode(out[0, ids.shape[1] :].tolist())


test_conformance = method_checks(
    "mentor_collab",
    settings=[{"patch_size": 3}, {"patch_size": 3, "debias": True, "decision_proportion": 60.0}],
    pool=lambda: pool(1, 2),
    sampling=Sampling(max_new_tokens=6),
    questions=example_questions(2),
)


test_conformance_of_models_that_only_write_text = method_checks(
    "mentor_collab",
    settings=[{"patch_size": 3, "decision_proportion": 50.0, "debias": True, "wording": "choice"}],
    pool=lambda: pool(1, 2, capabilities={"generate"}),
    sampling=Sampling(max_new_tokens=24),
    questions=example_questions(2),
)


def test_never_consulting_is_the_generator_without_any_mentor_call():
    models = pool(1, 2)
    reply, calls = written(models, True, decision_proportion=0.0)
    assert reply.text == alone(models[0]) and not calls
    assert reply.meta["consultations"] == 0 and reply.meta["tokens"]["m1"] == {"read": 0, "written": 0}


@pytest.mark.parametrize("patch", [1, 4])
def test_always_consulting_with_a_fixed_verdict_is_that_model(patch):
    models = pool(1, 2)
    reply, calls = written(models, False, decision_proportion=100.0, patch_size=patch)
    assert reply.text == alone(models[0]) and calls
    reply, calls = written(models, True, decision_proportion=100.0, patch_size=patch)
    assert reply.text == alone(models[1]) and calls


@pytest.mark.parametrize("share", [10.0, 50.0, 100.0])
def test_identical_models_equal_the_single_model_and_never_ask_the_verifier(share):
    models = pool(2, 2)
    reply, calls = written(models, True, decision_proportion=share)
    assert reply.text == alone(models[0]) and not calls and reply.meta["disagreements"] == 0


@pytest.mark.parametrize("share", [1.0, 25.0, 100.0])
def test_the_consultation_rate_is_exact(share):
    writing = Writing(None, Options(decision_proportion=share), 0, None, random.Random(5))
    consulted = words = 0
    while words < 10_000:
        alone_words = writing._words_alone(10_000)
        if alone_words:
            words += alone_words
        else:
            consulted += 1
            words += 1
    p = share / 100
    assert abs(consulted - p * words) <= 3 * (words * p * (1 - p)) ** 0.5


def test_a_consulted_end_is_an_option_and_choosing_it_finishes():
    assert shown(Segment((), b"", True), Segment((5,), b" go", False)).decode().count("(the answer ends here)") == 1

    models = pool(1, 2)
    # both models are told that every token ends: empty segments on both sides finish the answer
    for model in models:
        loaded = model.engine.loaded[model.name]
        loaded.end_ids = frozenset(range(len(TOKENIZER)))
        loaded.scratch.clear()
    reply, calls = written(models, True, decision_proportion=100.0)
    assert reply.text == "" and reply.finish_reason == "eos" and not calls


def test_a_verifier_call_leaves_the_generator_where_it_was():
    models = pool(1, 2)
    judged = asyncio.run(_states(models))
    assert torch.allclose(*judged, atol=1e-5)


def test_a_rejected_draft_leaves_no_trace_in_the_cache():
    models = pool(1, 2)

    async def main():
        async with open_session() as session:
            context = session.context("respond", QUESTION)
            step = await open_step(context, models[0], QUESTION)
            step.append_text("a start")
            await step.draft(9)  # the generator's own segment, which the mentor's replaces
            step.append_text(" and another way")
            with torch.inference_mode():
                module = models[0].engine.loaded["m0"].module
                ids = [*step.opened.prompt, *step.vocabulary.encode(b"a start and another way")]
                want = module(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
            return (await step.peek(full=True)).full, want

    got, want = asyncio.run(main())
    seen = torch.isfinite(got)
    assert (got - want[: len(got)])[seen].abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize(("share", "verdict"), [(0.0, False), (100.0, False), (100.0, True)])
def test_an_end_after_two_words_ends_the_answer_without_a_marker(share, verdict):
    stepping = frozenset({"generate", "logprobs", "step", "hidden"})
    models = texting(["a", " b"], ["a", " c"], capabilities=stepping)
    reply, calls = written(
        models,
        verdict,
        question=Question(id="q", prompt="go!"),
        decision_proportion=share,
        patch_size=4,
    )
    assert reply.finish_reason == "eos" and reply.text == ("a c" if verdict else "a b")
    if calls:  # the ends were shown as such
        assert all(one.ended for pair in calls for one in pair)


async def _states(models):
    async with open_session() as session:
        context = session.context("respond", QUESTION)
        step = await open_step(context, models[0], QUESTION)
        step.append_text("a start")
        a, b = Segment((5, 6), b" one", False), Segment((7,), b" two", True)
        await verifier_of(Options(), None)(step, a, b)
        await features(step, shown(a, b))
        assert step.text == "a start"
        after = await step.peek(full=True)
        fresh = await open_step(context, models[0], QUESTION)
        fresh.append_text("a start")
        return after.full, (await fresh.peek(full=True)).full


def test_the_feature_is_read_at_the_end_whatever_the_question_says():
    # QUESTION contains the consultation's own wording
    models = pool(1, 2)

    async def main():
        async with open_session() as session:
            context = session.context("respond", QUESTION)
            step = await open_step(context, models[0], QUESTION)
            a, b = Segment((5,), b" one", False), Segment((7,), b" two", False)
            got = await features(step, shown(a, b))
            ids = [*step.opened.prompt, *step.vocabulary.encode(shown(a, b))]
            with torch.inference_mode():
                module = models[0].engine.loaded["m0"].module
                out = module(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
            return got, out.hidden_states[-1][0, -1]

    assert torch.allclose(*asyncio.run(main()), atol=1e-4)


def test_different_tokenizers_write_clean_text():
    models = pool(1, other=(4,))
    reply, _ = written(models, True, shared=False, decision_proportion=60.0, patch_size=5)
    assert "".join(s.text for s in reply.spans) == reply.text
    assert not any(t in reply.text for t in ("<end>", "<pad>", "<unk>"))


WORDS = word_tokenizer(["a", " b", " c", " d", " e", " A", " B"])


def texting(*paths, verdict=" A", capabilities=frozenset({"generate"})):
    """Models (behind a server, by default) which follow a text word by word and answer ``verdict`` when asked to choose."""
    engine = LocalEngine()

    def following(path):
        def scores(ids):
            said = WORDS.decode(ids)
            if said.endswith("Answer:"):
                token = verdict
            else:
                said = said.rpartition("!")[2]
                token = next((t for n, t in enumerate(path) if "".join(path[:n]) == said), None)
            end = WORDS.eos_token_id
            return {end if token is None else WORDS.encode(token, add_special_tokens=False)[0]: 10.0}

        return scores

    return [
        engine.add(f"m{i}", ScriptedModule(len(WORDS), following(p)), WORDS, capabilities=capabilities)
        for i, p in enumerate(paths)
    ]


@pytest.mark.parametrize(("verdict", "text"), [(" A", "a b"), (" B", "a c d"), (" e", "a b")])
def test_models_that_only_write_text_are_weighed_too(verdict, text):
    models = texting(["a", " b"], ["a", " c", " d"], verdict=verdict)
    reply, _ = written(
        models, None, shared=False, question=Question(id="q", prompt="go!"), decision_proportion=100.0, patch_size=4
    )
    assert reply.text == text and reply.finish_reason == "eos"
    assert reply.meta["disagreements"] == 1 and reply.meta["mentored"] == (verdict == " B")
    assert not MentorCollab(Options()).needs().problems(models)
    (problem,) = MentorCollab(Options(verifier="mlp")).needs().problems(models)
    assert "'m0'" in problem and "verifier=prompt" in problem


class Whole(LastWord):
    """The whole reply is the answer."""

    def read(self, question, text):
        return Answer(key=text, text=text, status="parsed")


STEPPING = frozenset({"generate", "logprobs", "step", "hidden"})
SMILES = "\U0001f600 ok \U0001f601\U0001f602 \u4e2d\u6587 \U0001f603 and \U0001f604"


def spelling(*texts, capabilities=frozenset({"generate"})):
    """Models that write a text byte by byte, a token each, whatever was written before."""
    engine = LocalEngine()

    def following(text):
        def scores(ids):
            told = bytes(BYTES[i] for i in ids if i in BYTES)
            told = told.rpartition(b"!")[2]
            rest = text.encode()[len(told) :]
            return {next(i for i, b in BYTES.items() if b == rest[0]) if rest else WORDS.eos_token_id: 10.0}

        return scores

    return [
        engine.add(f"m{i}", ScriptedModule(len(WORDS), following(t)), WORDS, capabilities=capabilities)
        for i, t in enumerate(texts)
    ]


BYTES = {i: Vocabulary(WORDS).piece(i)[0] for i in range(len(WORDS)) if len(Vocabulary(WORDS).piece(i)) == 1}


@pytest.mark.parametrize("share", [0.0, 25.0, 100.0])
def test_an_answer_ends_where_the_next_character_needs_more_tokens_than_are_left(share):
    async def main(limit):
        async with open_session(sampling=Sampling(max_new_tokens=limit)) as session, asyncio.timeout(30):
            context = session.context("respond", GO)
            models, options = spelling(SMILES, SMILES), Options(decision_proportion=share)
            writing = await Writing.open(models, GO, options, False, context)
            return reply_of(await writing.run(verifier_of(options, None)), models)

    for limit in range(1, 34):
        reply = asyncio.run(main(limit))
        assert SMILES.startswith(reply.text) and reply.finish_reason == "length", limit
        assert reply.text or limit < 4, limit


def test_segments_that_read_the_same_are_not_weighed():
    """Cut inside a character, two segments of other bytes look alike: which is better would be rounding noise."""
    models = spelling("\U0001f600", "\U0001f480", capabilities=STEPPING)
    reply, calls = written(models, True, limit=3, question=GO, decision_proportion=100.0)
    assert not calls and reply.meta["disagreements"] == 0 and {s.model for s in reply.spans} <= {"m0"}


@pytest.mark.parametrize(
    ("lead", "margin", "mentor"), [(4.8e-7, 0.0, False), (1e-3, 0.0, True), (0.5, 0.5 - TIE / 2, False)]
)
def test_a_lead_of_rounding_noise_is_no_lead(lead, margin, mentor):
    class Judge:
        def mark(self):
            return None

        def append_text(self, text):
            self.asked = text

        def rollback(self, to):
            pass

        async def choice(self, labels):
            swapped = self.asked.index(b" two") < self.asked.index(b" one")
            return [0.0, -lead / 2] if swapped else [0.0, lead / 2]

    a, b = Segment((1,), b" one", False), Segment((2,), b" two", False)
    verifier = verifier_of(Options(debias=True, margin=margin), None)
    assert asyncio.run(verifier(Judge(), a, b)) is mentor


def test_the_wording_of_the_choice():
    a, b = Segment((1,), b" one", False), Segment((2,), b" two", True)
    asked = (shown(a, b, "choice") + choice("choice")).decode()
    assert "Option (A):  one\nOption (B): two (the answer ends here)\n" in asked and asked.endswith(
        "My choice: Option ("
    )
    assert shown(a, b) != shown(a, b, "choice") and b"Answer with one letter" in choice("request")


def test_words_are_those_of_the_answer():
    models = texting(["a", " b", " c"], ["a"], capabilities=STEPPING)
    reply, _ = written(models, True, limit=40, question=GO, decision_proportion=0.0)
    assert reply.text == "a b c" and reply.meta["words"] == 3


def test_where_nothing_is_left_to_chance_the_seed_and_the_question_change_nothing():
    cache = Cache(None)

    def work(share, seed, name="q"):
        models = texting(["a", " b"], ["a", " c", " d"], capabilities=STEPPING)
        run_method(
            MentorCollab(Options(decision_proportion=share)),
            models,
            questions=[Question(id=name, prompt="go!")],
            sampling=Sampling(max_new_tokens=8),
            seed=seed,
            cache=cache,
        )
        return sum(one.forwards for one in models[0].engine.loaded.values())

    for share in (0.0, 100.0):
        assert work(share, 0) > 0 and work(share, 1, "other") == 0
    assert work(50.0, 0) > 0 and work(50.0, 1) > 0


def fit(folder, in_flight=8, **options):
    """Fit a probe on dev questions of which every other one is the mentor's to answer; return what was worked."""
    models, probes = texting(["a", " b"], ["a", " c", " d"], capabilities=STEPPING), []
    dev = [
        Example(question=Question(id=f"d{i}", prompt="go!"), references=(("a b", "a c d")[i % 2],)) for i in range(6)
    ]
    settings = {"verifier": "mlp", "decision_proportion": 100.0, "min_labels": 4, "epochs": 2, **options}
    outcome = run_method(
        MentorCollab(Options(**settings)),
        models,
        dev=dev,
        questions=[GO],
        metric=Whole(NoOptions()),
        sampling=Sampling(max_new_tokens=8),
        in_flight=in_flight,
        cache=Cache(folder / "calls.sqlite"),
        after_fit=lambda system: probes.append(system.probe.fingerprint()),
    )
    engine = models[0].engine
    return outcome, probes, sum(engine.calls.values()) + sum(one.forwards for one in engine.loaded.values())


def test_fitting_again_writes_and_trains_nothing_again_however_many_questions_were_in_flight(tmp_path):
    first, probe, work = fit(tmp_path)
    again, same, more = fit(tmp_path, in_flight=1)
    assert first.state["probe"] is True and work > 0 and more == 0
    assert (probe, first.texts) == (same, again.texts)
    assert again.calls == first.calls  # what the cache spared is counted as the work it was
    assert fit(tmp_path, learning_rate=0.1)[1] != probe


def test_a_fit_that_was_killed_writes_nothing_again(tmp_path, monkeypatch):
    def killed(*args, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "train_probe", killed)
        fit(tmp_path)
    monkeypatch.setattr(fitting, "_endings", killed)
    assert fit(tmp_path)[0].state["probe"] is True


def test_segments_are_worth_what_a_run_would_return_after_them():
    models = texting(["a", " b", " c"], ["a"], capabilities=STEPPING)
    sampling = Sampling(max_new_tokens=8, stop=(" c",))

    async def main():
        async with open_session(sampling=sampling) as session:
            context = session.context("fit", GO)
            step = await open_step(context, models[0], GO)
            return await fitting._endings(step, Segment((WORDS.get_vocab()["a"],), b"a", False), 1, sampling, context)

    assert asyncio.run(main()) == ["a b"]


def test_batch_equals_single_rows():
    method = MentorCollab(Options(patch_size=4, decision_proportion=40.0))
    a, b = (
        run_method(
            method, pool(1, 2), questions=example_questions(6), sampling=Sampling(max_new_tokens=8), in_flight=n, seed=3
        )
        for n in (1, 8)
    )
    assert a.texts == b.texts and not a.errors


def test_a_probe_learns_what_is_separable_and_reloads_bit_equal(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=g) * 3 + 5
    y = (x[:, 0] > 5).long()
    keep = (x[:, 0] - 5).abs() > 1.5
    before = torch.get_rng_state()
    given = x[keep], y[keep], [f"q{i % 60}" for i in range(int(keep.sum()))]
    probe, report = train_probe(*given, learning_rate=3e-3, epochs=60)
    assert report["accuracy"] == report["balanced_accuracy"] == report["auroc"] == 1.0
    assert report["held_out"] and 0.3 < report["always_keep"] < 0.7  # what "always the generator" would give
    # another training at the same time would neither take random numbers from this one nor give it any
    assert torch.equal(torch.get_rng_state(), before)
    assert train_probe(*given, learning_rate=3e-3, epochs=60)[0].fingerprint() == probe.fingerprint()
    probe.save(tmp_path / "probe.safetensors")
    again = Probe.load(tmp_path / "probe.safetensors")
    assert again.fingerprint() == probe.fingerprint()
    assert all(again.keeps(row) == probe.keeps(row) for row in x[:10])


def test_too_few_labels_fall_back_to_the_prompt_verifier():
    outcome = run_method(
        MentorCollab(Options(verifier="mlp", patch_size=3)),
        pool(1, 2),
        dev=examples(2, prefix="d"),
        questions=example_questions(1),
        sampling=Sampling(max_new_tokens=6),
    )
    assert outcome.state["probe"] is False and "prompt verifier is used instead" in outcome.warnings[0]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"patch_size": 0}, "patch_size"),
        ({"decision_proportion": 101.0}, "decision_proportion"),
        ({"verifier": "x"}, "verifier"),
    ],
)
def test_bad_options(options, what):
    with pytest.raises(ConfigError, match=what):
        build(Options, options)


def test_bad_pools():
    assert "index 5 is out of range" in MentorCollab(Options(mentor=5)).needs().problems(pool(1, 2))[0]
    engine = LocalEngine()
    bare = [engine.add(n, tiny_llama(TOKENIZER, 1), TOKENIZER, capabilities={"generate", "step"}) for n in "ab"]
    assert "hidden states" in MentorCollab(Options(verifier="mlp")).needs().problems(bare)[0]
