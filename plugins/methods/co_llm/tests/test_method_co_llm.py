"""Co-LLM: decoding against single models and a plain loop, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from deferring_models import QUESTION, QUICK, TOKENIZER, pool, written

from moco_core import CapabilityError, ConfigError, Sampling
from moco_core.options import build
from moco_method_co_llm.method import CoLLM
from moco_method_co_llm.options import Options
from moco_method_co_llm.thresholds import schedule
from moco_toolkit_authoring import example_questions, examples, method_checks, run_method
from moco_toolkit_decoding.testing import LocalEngine, bpe_tokenizer, tiny_gpt2, tiny_llama


def alone(model, limit=12):
    one = model.engine.loaded[model.name]
    ids = torch.tensor([one.render_input({"messages": [["user", QUESTION.text()]]}).ids])
    out = one.module.generate(ids, do_sample=False, max_new_tokens=limit, eos_token_id=0, pad_token_id=1)
    return one.decode(out[0, ids.shape[1] :].tolist())


def some_head(seed=0):
    return torch.randn(32, generator=torch.Generator().manual_seed(seed)).tolist()


test_conformance = method_checks(
    "co_llm",
    settings=[QUICK, {**QUICK, "strategy": "compose", "deferral_threshold": 0.5}],
    pool=lambda: pool(1, 2),
    sampling=Sampling(max_new_tokens=5),
    questions=example_questions(2),
    dev=examples(4, prefix="d"),
)


def test_never_and_always_deferring_are_the_single_models():
    models = pool(1, 2)
    never = written(models, some_head(), 1.0)
    assert never.text == alone(models[0]) and never.meta["tokens"]["m1"] == {"read": 0, "written": 0}
    always = written(models, some_head(), -1.0)
    assert always.text == alone(models[1]) and always.meta["share"].get("m0", 0) == 0


@pytest.mark.parametrize("eta", [0.2, 0.5, 0.8])
def test_identical_models_do_not_depend_on_the_threshold(eta):
    models = pool(2, 2)
    assert written(models, some_head(), eta).text == alone(models[0])
    assert written(models, some_head(), eta, strategy="compose").text == alone(models[0])


def test_the_length_of_base_drafts_changes_nothing():
    models = pool(1, 2)
    replies = [written(models, some_head(1), 0.5, draft_len=n) for n in (1, 4, 10)]
    assert len({r.text for r in replies}) == 1
    assert len({r.meta["deferrals"] for r in replies}) == 1
    assert 0 < replies[0].meta["deferrals"] < 12


def test_decoding_equals_a_plain_loop_without_cache():
    models, head = pool(1, 2), torch.tensor(some_head(1))
    base, assistant = (m.engine.loaded[m.name].module for m in models)
    one = models[0].engine.loaded["m0"]
    ids = list(one.render_input({"messages": [["user", QUESTION.text()]]}).ids)
    start = len(ids)
    with torch.inference_mode():
        while len(ids) - start < 12:
            out = base(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
            u = out.hidden_states[-1][0, -1] @ head
            logits = assistant(torch.tensor([ids]), use_cache=False).logits if u.sigmoid() > 0.5 else out.logits
            token = int(logits[0, -1].argmax())
            if token == 0:
                break
            ids.append(token)
    assert written(models, some_head(1), 0.5).text == one.decode(ids[start:])


def test_padding_rows_never_win():
    models = pool(1, 2, rows=5)
    module = models[1].engine.loaded["m1"].module
    with torch.no_grad():
        module.lm_head.weight[-5:] *= 50
    always = written(models, some_head(), -1.0)
    expected, loud = [], 0  # the assistant alone, over the common vocabulary
    ids = list(models[0].engine.loaded["m0"].render_input({"messages": [["user", QUESTION.text()]]}).ids)
    with torch.inference_mode():
        while len(expected) < 12:
            logits = module(torch.tensor([ids + expected]), use_cache=False).logits[0, -1]
            loud += int(logits.argmax()) >= len(TOKENIZER)
            token = int(logits[: len(TOKENIZER)].argmax())
            if token == 0:
                break
            expected.append(token)
    assert loud and always.text == models[0].engine.loaded["m0"].decode(expected)


def test_warmup_of_the_threshold():
    assert schedule(0.3, Options()) == (0.3,)
    for kind in ("linear", "cosine", "exponential"):
        falling = schedule(0.3, Options(threshold_warmup=kind, warmup_tokens=5))
        assert falling[0] == pytest.approx(1.0) and falling[-1] == 0.3
        assert all(a > b for a, b in pairwise(falling))
    assert schedule(0.0, Options(threshold_warmup="linear", warmup_tokens=4)) == (1.0, 0.75, 0.5, 0.25, 0.0)


def test_batch_equals_single_rows():
    method = CoLLM(Options(**QUICK, deferral_threshold=0.5))
    a, b = (
        run_method(
            method,
            pool(1, 2),
            dev=examples(3, prefix="d"),
            questions=example_questions(6),
            sampling=Sampling(max_new_tokens=8, temperature=0.8),
            in_flight=n,
        )
        for n in (1, 8)
    )
    assert a.texts == b.texts and not a.errors


def test_tokenizers_that_differ_in_one_id_are_refused_before_training():
    engine = LocalEngine()
    changed = bpe_tokenizer(texts=("the quick brown fox jumps over the lazy cat",))
    models = [engine.add("a", tiny_llama(TOKENIZER, 1), TOKENIZER), engine.add("b", tiny_gpt2(changed, 1), changed)]
    problems = CoLLM(Options()).needs().problems(models)
    assert "the tokenizers of 'a' and 'b' differ: id" in problems[0]
    with pytest.raises(CapabilityError, match="differ: id"):
        run_method(CoLLM(Options(**QUICK)), models, dev=examples(2, prefix="d"))


@pytest.mark.parametrize(
    ("options", "what"),
    [({"deferral_threshold": 1.5}, "deferral_threshold"), ({"draft_len": 0}, "draft_len"), ({"init": "c"}, "init")],
)
def test_bad_options(options, what):
    with pytest.raises(ConfigError, match=what):
        build(Options, options)


def test_models_without_a_part_need_nothing_but_to_write():
    engine = LocalEngine()
    kinds = ({"generate", "step", "hidden"}, {"generate", "step"}, {"generate"})
    models = [
        engine.add(f"m{i}", tiny_llama(TOKENIZER, i), TOKENIZER, capabilities=kind) for i, kind in enumerate(kinds)
    ]
    assert not CoLLM(Options()).needs().problems(models)
    problems = CoLLM(Options(base=1, assistant=2)).needs().problems(models)
    assert len(problems) == 2 and "'m1'" in problems[0] and "hidden" in problems[0] and "'m2'" in problems[1]
    assert all(f"--can {name}`" in problem for problem, name in zip(problems, ("hidden", "step"), strict=True))


def test_bad_pools():
    assert "index 3 is out of range" in CoLLM(Options(assistant=3)).needs().problems(pool(1, 2))[0]
    with pytest.raises(ConfigError, match="dev"):
        run_method(CoLLM(Options()), pool(1, 2))
