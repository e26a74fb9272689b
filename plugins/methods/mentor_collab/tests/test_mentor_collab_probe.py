"""The probe that verifies: what it is fitted on, what it learns, and that nothing is written or trained again."""

from __future__ import annotations

import asyncio

import pytest
import torch
from mentored_writing import GO, QUESTION, STEPPING, WORDS, pool, shown, texting

from moco_core import Example, Question, Sampling
from moco_core.options import NoOptions
from moco_core.runtime.cache import Cache
from moco_core.types import Answer
from moco_method_mentor_collab import fitting
from moco_method_mentor_collab.method import MentorCollab
from moco_method_mentor_collab.options import Options
from moco_method_mentor_collab.probe import Probe, train_probe
from moco_method_mentor_collab.prompts import Segment
from moco_method_mentor_collab.verifying import features
from moco_toolkit_authoring import example_questions, examples, run_method
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_authoring.toy import LastWord
from moco_toolkit_decoding import open_session


def test_the_feature_is_read_at_the_end_whatever_the_question_says():
    # QUESTION contains the consultation's own wording
    models = pool(1, 2)

    async def main():
        async with open_state() as state:
            context = state.context("respond", QUESTION)
            step = await open_session(context, models[0], QUESTION)
            a, b = Segment((5,), b" one", False), Segment((7,), b" two", False)
            got = await features(step, shown(a, b))
            ids = [*step.opened.prompt, *step.vocabulary.encode(shown(a, b))]
            with torch.inference_mode():
                module = models[0].engine.loaded["m0"].module
                out = module(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
            return got, out.hidden_states[-1][0, -1]

    assert torch.allclose(*asyncio.run(main()), atol=1e-4)


class Whole(LastWord):
    """The whole reply is the answer."""

    def read(self, question, text):
        return Answer(key=text, text=text, status="parsed")


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
        async with open_state(sampling=sampling) as state:
            context = state.context("fit", GO)
            step = await open_session(context, models[0], GO)
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
