"""Contrastive decoding: roles, strengths, and what is refused. The formulas are tested with the toolkit."""

from __future__ import annotations

import pytest
import torch

from moco_core import Sampling
from moco_core.errors import CapabilityError, ConfigError
from moco_core.models import Pool
from moco_core.options import build
from moco_method_logit_contrastive.method import LogitContrastive
from moco_method_logit_contrastive.options import Options
from moco_method_logit_contrastive.roles import Roles
from moco_toolkit_authoring import example_questions, examples, method_checks, run_method
from moco_toolkit_decoding.testing import LocalEngine, bpe_tokenizer, spaced_tokenizer, tiny_llama

torch.set_num_threads(1)
TOKENIZER = bpe_tokenizer()
SHORT = Sampling(max_new_tokens=8)
DEV = examples(3, prefix="d")


def pool(*seeds):
    engine = LocalEngine()
    return [engine.add(f"m{i}", tiny_llama(TOKENIZER, s), TOKENIZER) for i, s in enumerate(seeds)]


def run(models, dev=DEV, sampling=SHORT, **options):
    method = LogitContrastive(Options(**options))
    return run_method(method, models, dev=dev, questions=example_questions(2), sampling=sampling)


def greedy_texts(models, i):
    one = models[i].engine.loaded[models[i].name]
    out = {}
    for q in example_questions(2):
        ids = torch.tensor([one.render_input({"messages": [["user", q.text()]]}).ids])
        written = one.module.generate(ids, do_sample=False, max_new_tokens=8, eos_token_id=0, pad_token_id=1)
        out[q.id] = one.decode(written[0, ids.shape[1] :].tolist())
    return out


EXPLICIT = {"roles": "explicit", "base": 0, "experts": [1], "anti_experts": [2]}

test_conformance = method_checks(
    "logit_contrastive",
    settings=[{}, EXPLICIT, {"mode": "cd_beta", "beta": "search", "grid": [0.5]}],
    pool=lambda: pool(1, 2, 3),
    sampling=SHORT,
    questions=example_questions(2),
    dev=DEV,
)


def test_ranking_breaks_ties_by_index_and_keeps_roles_apart():
    assert Roles.ranked([0.5, 0.7, 0.5, 0.1], 1) == Roles(1, (1,), (3,))
    assert Roles.ranked([0.5, 0.5, 0.5, 0.5], 2) == Roles(0, (0, 1), (2, 3))
    assert Roles.ranked([0.1, 0.1], 1) == Roles(0, (0,), (1,))
    with pytest.raises(ConfigError, match="need 4 models"):
        Roles.ranked([0.1, 0.2, 0.3], 2)


def test_candidates_alone_are_ranked_and_need_one_tokenizer():
    engine = LocalEngine()
    other = spaced_tokenizer()
    models = [
        engine.add("odd", tiny_llama(other, 9), other),
        *(engine.add(f"m{i}", tiny_llama(TOKENIZER, i), TOKENIZER) for i in range(3)),
    ]
    with pytest.raises(CapabilityError, match="name them in candidates"):
        run(Pool(models))
    named = run(Pool(models), candidates=("m2", 1, "m1"))
    # all score 0: the first named is the expert and base, the last the anti-expert
    assert {k: named.state[k] for k in ("base", "experts", "antis")} == {"base": 3, "experts": [3], "antis": [2]}
    explicit = run(Pool(models), roles="explicit", base="m2", experts=("m2",), anti_experts=("m1",), plausibility=0.1)
    assert named.texts == explicit.texts and not engine.loaded["odd"].scratch


def test_equal_expert_and_anti_expert_leave_the_base_alone():
    models = pool(1, 2, 2)
    outcome = run(models, roles="explicit", base="m0", experts=("m1",), anti_experts=("m2",), alpha=2.0)
    assert outcome.texts == greedy_texts(models, 0)


@pytest.mark.parametrize("plausibility", [0.0, 0.1, 1.0])
def test_zero_strength_is_the_base_for_every_mask(plausibility):
    models = pool(1, 2, 3)
    kept = {"plausibility": plausibility, "roles": "explicit", "anti_experts": (2,)}
    assert run(models, experts=(1,), base=0, alpha=0.0, **kept).texts == greedy_texts(models, 0)
    assert run(models, mode="cd_beta", experts=(1,), beta=0.0, **kept).texts == greedy_texts(models, 1)


def test_full_plausibility_is_the_reference_whatever_the_strength():
    models = pool(1, 2, 3)
    outcome = run(models, roles="explicit", base=0, experts=(1,), anti_experts=(2,), alpha=5.0, plausibility=1.0)
    assert outcome.texts == greedy_texts(models, 0)
    assert all(r.meta["share"] == {"m0": 1.0} for r in outcome.replies.values() if r.text)


def test_a_row_alone_equals_the_row_in_a_batch():
    sampling = Sampling(max_new_tokens=8, temperature=0.8)
    method = LogitContrastive(Options(roles="explicit", experts=(1,), anti_experts=(0,)))
    a, b = (
        run_method(method, pool(1, 2), questions=example_questions(5), sampling=sampling, in_flight=n) for n in (1, 8)
    )
    assert a.texts == b.texts


def test_search_keeps_the_smallest_of_equal_strengths():
    assert run(pool(1, 2), alpha="search", grid=(0.5, 1.0)).state["strength"] == 0.0


def test_default_masks():
    assert Options().mask() == 0.1
    assert Options(roles="explicit", experts=(0,), anti_experts=(1,)).mask() == 0.0
    assert Options(mode="cd", roles="explicit", experts=(0,), anti_experts=(1,)).mask() == 0.1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"plausibility": 1.1}, "plausibility"),
        ({"k": 0}, "k"),
        ({"roles": "explicit"}, "explicit"),
        ({"base": 1}, "roles=explicit"),
        ({"candidates": ["a"]}, "2 candidates"),
        ({"roles": "explicit", "experts": [0], "anti_experts": [1], "candidates": [0, 1]}, "candidates"),
        ({"mode": "prob"}, "mode"),
        ({"beta": "search"}, "cd_beta"),
    ],
)
def test_bad_options(options, what):
    with pytest.raises(ConfigError, match=what):
        build(Options, options)


def test_bad_pools():
    apart = [pool(1)[0], pool(1, 2)[1]]
    assert "do not share an engine" in LogitContrastive(Options()).needs().problems(apart)[0]
    assert LogitContrastive(Options(k=2)).needs().problems(pool(1, 2, 3))
    explicit = Options(roles="explicit", experts=("m1",), anti_experts=("nobody",))
    strange, twice = (Options(candidates=c) for c in (("m1", "who"), ("m1", 1)))
    assert "no model 'who'" in LogitContrastive(strange).needs().problems(pool(1, 2))[0]
    assert "twice" in LogitContrastive(twice).needs().problems(pool(1, 2))[0]
    assert "no model 'nobody'" in LogitContrastive(explicit).needs().problems(pool(1, 2))[0]
    engine = LocalEngine()
    other = spaced_tokenizer()
    mixed = [engine.add("a", tiny_llama(TOKENIZER, 1), TOKENIZER), engine.add("b", tiny_llama(other, 1), other)]
    with pytest.raises(CapabilityError, match="id 0 is '<end>'"):
        run(Pool(mixed))
