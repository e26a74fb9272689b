"""MentorCollab: who writes and who is consulted, what decides, seeds, bad input."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch
from mentored_writing import GO, QUESTION, STEPPING, TOKENIZER, pool, shown, texting, written

from moco_core import ConfigError, Question, Sampling
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_method_mentor_collab.method import MentorCollab
from moco_method_mentor_collab.options import Options
from moco_method_mentor_collab.prompts import Segment, choice
from moco_method_mentor_collab.verifying import features, verifier_of
from moco_method_mentor_collab.writing import Writing
from moco_toolkit_authoring import example_questions, method_checks, run_method
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding import open_session
from moco_toolkit_decoding.testing import LocalEngine, tiny_llama


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
        async with open_state() as state:
            context = state.context("respond", QUESTION)
            step = await open_session(context, models[0], QUESTION)
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
    async with open_state() as state:
        context = state.context("respond", QUESTION)
        step = await open_session(context, models[0], QUESTION)
        step.append_text("a start")
        a, b = Segment((5, 6), b" one", False), Segment((7,), b" two", True)
        await verifier_of(Options(), None)(step, a, b)
        await features(step, shown(a, b))
        assert step.text == "a start"
        after = await step.peek(full=True)
        fresh = await open_session(context, models[0], QUESTION)
        fresh.append_text("a start")
        return after.full, (await fresh.peek(full=True)).full


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
