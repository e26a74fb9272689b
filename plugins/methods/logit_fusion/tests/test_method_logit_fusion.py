"""Logit fusion: weights, their fitting, and what is refused. The numbers of fusing are tested with the toolkit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from moco_core import CapabilityError, ConfigError, Example, Question, Sampling
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_method_logit_fusion import likelihood
from moco_method_logit_fusion.likelihood import ReferenceScores, fit_weights, rounded
from moco_method_logit_fusion.method import LogitFusion
from moco_method_logit_fusion.options import Options
from moco_toolkit_authoring import example_questions, examples, method_checks, run_method
from moco_toolkit_decoding.testing import LocalEngine, bpe_tokenizer, spaced_tokenizer, tiny_llama

torch.set_num_threads(1)
TOKENIZER = bpe_tokenizer()
SHORT = Sampling(max_new_tokens=6)
DEV = examples(3, prefix="d")


def pool(*seeds, other=()):
    engine = LocalEngine()
    models = [engine.add(f"m{i}", tiny_llama(TOKENIZER, s), TOKENIZER) for i, s in enumerate(seeds)]
    return models + [engine.add(f"s{s}", tiny_llama(spaced_tokenizer(), s), spaced_tokenizer()) for s in other]


def fused(models, dev=DEV, **options):
    return run_method(LogitFusion(Options(**options)), models, dev=dev, questions=example_questions(2), sampling=SHORT)


test_conformance = method_checks(
    "logit_fusion",
    settings=[{}, {"combine": "prob", "weights": [0.2, 0.8]}, {"weights": "nll", "combine": "prob"}],
    pool=lambda: pool(1, 2),
    sampling=SHORT,
    questions=example_questions(2),
    dev=DEV,
)


def test_listed_weights_are_normalised_and_one_hot_is_the_model():
    assert fused(pool(1, 2), weights=(1.0, 3.0)).state["weights"] == [0.25, 0.75]
    assert fused(pool(1, 2), weights=(1.0, 3.0), normalise=False).state["weights"] == [1.0, 3.0]
    both = fused(pool(1, 2), weights=(0.0, 2.0))
    alone = fused(pool(2, 2), weights=(0.5, 0.5))
    assert both.texts == alone.texts


def test_dev_weights_are_a_softmax_of_scores_and_equal_scores_share():
    assert fused(pool(1, 2, 3), weights="dev").state["weights"] == pytest.approx([1 / 3] * 3)  # all score 0


def test_search_includes_the_corners_and_ties_go_to_the_uniform_point():
    assert fused(pool(1, 2), weights="search").state["weights"] == [0.5, 0.5]
    assert fused(pool(1, 2, 3), weights="search", search_budget=1).state["weights"] == pytest.approx([1 / 3] * 3)


def components(n=3, t=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    full = (torch.randn(n, t, 20, generator=g) * 2).log_softmax(-1)
    truth = full[1].exp().multinomial(1, generator=g).squeeze(-1)  # member 1 is right
    chosen = full.gather(-1, truth.expand(n, t)[..., None]).squeeze(-1)
    return full, truth, chosen


def test_em_never_rises_and_beats_every_single_member():
    _, truth, chosen = components()
    weights, history = fit_weights(ReferenceScores(chosen, truth), "prob")
    assert all(b <= a + 1e-12 for a, b in pairwise(history))
    assert history[-1] <= min(float(-c.mean()) for c in chosen.double()) + 1e-6
    assert sum(weights) == pytest.approx(1) and max(weights) == weights[1]


@pytest.mark.parametrize("combine", ["logprob", "max", "prob"])
def test_gradient_weights_improve_on_uniform(combine):
    full, truth, chosen = components()
    weights, (first, last) = fit_weights(ReferenceScores(chosen, truth, full.half()), combine)
    assert last < first and max(weights) == weights[1]
    if combine == "prob":
        em, _ = fit_weights(ReferenceScores(chosen, truth), "prob")
        assert weights == pytest.approx(em, abs=0.02)


@pytest.mark.parametrize("combine", ["logprob", "max", "prob"])
def test_an_id_that_no_tokenizer_defines_changes_no_weight(combine):
    full, truth, chosen = components()
    hole = torch.cat([full, torch.full((3, 200, 1), -torch.inf)], -1)[..., [20, *range(20)]]  # an undefined id in front
    want, _ = fit_weights(ReferenceScores(chosen, truth, full.half()), combine)
    got, _ = fit_weights(ReferenceScores(chosen, truth + 1, hole.half()), combine)
    assert got == pytest.approx(want, abs=1e-6) and max(got) == got[1] > 0.4


def test_weights_are_not_found_from_scores_that_are_not_finite():
    full, truth, chosen = components()
    for broken in (
        ReferenceScores(chosen, truth, full.masked_fill(full > -0.1, torch.nan)),
        ReferenceScores(chosen.masked_fill(chosen > -0.1, torch.nan), truth),
    ):
        with pytest.raises(ConfigError, match="not finite"):
            fit_weights(broken, "prob")


def test_rounded_weights_sum_to_one_and_hide_the_last_bits():
    assert rounded([1 / 3, 1 / 3, 1 / 3]) == [0.3334, 0.3333, 0.3333]
    assert rounded([0.25000001, 0.74999999]) == rounded([0.25, 0.75]) == [0.25, 0.75]
    assert rounded([0.99999, 0.00001]) == [1.0, 0.0]  # a member without a say is not loaded


@pytest.mark.parametrize("combine", ["prob", "logprob"])
def test_weights_by_likelihood_are_found_once_however_many_questions_were_in_flight(tmp_path, combine):
    def fit(in_flight):
        models = pool(1, 2)
        outcome = run_method(
            LogitFusion(Options(weights="nll", combine=combine)),
            models,
            dev=DEV,
            sampling=SHORT,
            in_flight=in_flight,
            cache=Cache(tmp_path / "calls.sqlite"),
        )
        engine = models[0].engine
        return outcome, sum(engine.calls.values()) + sum(one.forwards for one in engine.loaded.values())

    first, work = fit(8)
    again, more = fit(1)
    assert work > 0 and more == 0
    assert again.state == first.state and sum(first.state["weights"]) == pytest.approx(1)
    assert (
        again.calls["fit"] == first.calls["fit"] == 2 * len(DEV)
    )  # what the cache spared is counted as the work it was


def test_a_choice_counts_in_the_wording_that_the_metric_reads():
    question = Question(id="c", prompt="pick the dog", choices=("a cat", "a dog"), answer_kind="choice")
    choice = Example(question=question, answer=1)
    read = []
    models = pool(1, 2)
    for one in models[0].engine.loaded.values():
        one.module.register_forward_pre_hook(
            lambda _, args, given: read.extend(given["input_ids"].tolist()), with_kwargs=True
        )
    fused(models, dev=[choice], weights="nll", combine="prob")
    assert sum("The answer is B" in TOKENIZER.decode(row) for row in read) == 2
    with pytest.raises(ConfigError, match="reference texts"):
        fused(pool(1, 2), dev=[Example(question=Question(id="o", prompt="say"))], weights="nll")


def test_references_beyond_the_memory_for_full_distributions_are_left_out_and_never_asked_for(monkeypatch):
    dev = examples(6, prefix="d")
    one = 2 * 2 * len(TOKENIZER)  # bytes of a position: two members, two bytes a number
    sizes = [len(TOKENIZER.encode(e.references[0], add_special_tokens=False)) for e in dev if e.references]
    monkeypatch.setattr(likelihood, "MEMORY", one * sum(sizes[:2]))
    monkeypatch.setattr(likelihood, "CHUNK", 3)
    models = pool(1, 2)
    outcome = fused(models, dev=dev, weights="nll", combine="logprob")
    assert "the first 2 references" in outcome.warnings[0]
    assert outcome.calls["fit"] == 2 * 3  # one chunk of three under two members


def test_models_with_different_tokenizers():
    mixed = pool(1, other=(2,))
    outcome = fused(mixed, combine="prob")
    assert not outcome.errors and outcome.state["unite"] is True
    assert fused(pool(1, 2)).state["unite"] is False
    problem = LogitFusion(Options(alignment="same")).needs().problems(mixed)
    assert "id 0 is '<end>' in one and '<unk>' in the other" in problem[0] and "unite" in problem[0]
    fresh = pool(1, other=(2,))
    with pytest.raises(CapabilityError, match="id 0"):
        fused(fresh, alignment="same")
    for model in fresh:
        assert not model.engine.loaded[model.name].scratch  # refused before anything ran


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"weights": [-1.0, 2.0]}, "weights"),
        ({"weights": [0.0, 0.0]}, "above 0"),
        ({"weights": [float("nan"), 1.0]}, "weights"),
        ({"plausibility": 1.0}, "plausibility"),
        ({"tau_w": 0.0}, "tau_w"),
        ({"normalise": False}, "normalise"),
        ({"combine": "probs"}, "combine"),
        ({"weights": "nll", "alignment": "unite"}, "nll"),
    ],
)
def test_bad_options(options, what):
    with pytest.raises(ConfigError, match=what):
        build(Options, options)


def test_bad_pools():
    needs = LogitFusion(Options(weights=(0.5, 0.5))).needs()
    assert "weights has 2 entries, the pool has 3 models" in needs.problems(pool(1, 2, 3))[0]
    engine = LocalEngine()
    texts = [engine.add(n, tiny_llama(TOKENIZER, 1), TOKENIZER, capabilities={"generate"}) for n in "ab"]
    assert "cannot advance token by token" in needs.problems(texts)[0]
    with pytest.raises(ConfigError, match="dev"):
        fused(pool(1, 2), dev=(), weights="search")
    (line,) = needs.problems([*pool(1), *pool(2)])  # two engines: before the dev evaluation
    assert line.startswith("models 'm0' and 'm0' do not share an engine; open them in one pool")
