"""Co-LLM: the loss against finite differences, the head on a toy grammar, decoding against single models."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
import torch

from moco_core import Question, Sampling
from moco_core.errors import CapabilityError, ConfigError
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_method_co_llm import CoLLM, CoLLMOptions
from moco_method_co_llm.fitting import (
    Positions,
    deferral_loss,
    threshold_for_fraction,
    train_head,
    weak_labels,
    youden,
)
from moco_method_co_llm.writing import thresholds, write
from moco_toolkit_authoring import example_questions, examples, method_checks, run_method
from moco_toolkit_authoring.harness import open_session
from moco_toolkit_decoding import open_session as open_step
from moco_toolkit_decoding.handover import reply_of
from moco_toolkit_decoding.testing import LocalEngine, bpe_tokenizer, tiny_gpt2, tiny_llama

torch.set_num_threads(1)
TOKENIZER = bpe_tokenizer()
QUESTION = Question(id="q", prompt="the quick brown")
QUICK = {"targets": "gold", "epochs": 2, "quantiles": 2}


def pool(*seeds, rows=0):
    engine = LocalEngine()
    return [
        engine.add(f"m{i}", tiny_llama(TOKENIZER, s, rows=rows if i else 0), TOKENIZER) for i, s in enumerate(seeds)
    ]


def written(models, head, eta, limit=12, **options):
    async def main():
        async with open_session(sampling=Sampling(max_new_tokens=limit)) as session:
            context = session.context("respond", QUESTION)
            data = await write(models, QUESTION, CoLLMOptions(**options), head, eta, context)
            return reply_of(data, models)

    return asyncio.run(main())


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
    assert never.text == alone(models[0]) and never.meta["tokens"]["m1"]["written"] == 0
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
    assert thresholds(0.3, CoLLMOptions()) == (0.3,)
    for kind in ("linear", "cosine", "exponential"):
        schedule = thresholds(0.3, CoLLMOptions(threshold_warmup=kind, warmup_tokens=5))
        assert schedule[0] == pytest.approx(1.0) and schedule[-1] == 0.3
        assert all(a > b for a, b in pairwise(schedule))
    assert thresholds(0.0, CoLLMOptions(threshold_warmup="linear", warmup_tokens=4)) == (1.0, 0.75, 0.5, 0.25, 0.0)


def test_batch_equals_single_rows():
    method = CoLLM(CoLLMOptions(**QUICK, deferral_threshold=0.5))
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


# -------------------------------------------------------------------- the loss and the head


def test_the_loss_at_its_limits_and_its_gradient():
    base, assistant = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-0.3, -4.0, -0.5])
    assert torch.allclose(deferral_loss(torch.full((3,), -40.0), base, assistant), -base, atol=1e-6)
    assert torch.allclose(deferral_loss(torch.full((3,), 40.0), base, assistant), -assistant, atol=1e-6)
    u = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    p0, p1 = base.double(), assistant.double()
    deferral_loss(u, p0, p1).sum().backward()
    s = u.detach().sigmoid()
    posterior = s * p1.exp() / ((1 - s) * p0.exp() + s * p1.exp())
    assert torch.allclose(u.grad, s - posterior, atol=1e-12)
    assert u.grad[2].abs() < 1e-12  # equal probabilities: nothing to learn
    h = 1e-6
    for i in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[i] = h
        slope = (deferral_loss(u + step, p0, p1) - deferral_loss(u - step, p0, p1)).sum() / (2 * h)
        assert float(slope.detach()) == pytest.approx(float(u.grad[i]), abs=1e-6)


def test_the_deferral_logit_is_no_part_of_the_vocabulary():
    models = pool(1, 2)

    async def main():
        async with open_session() as session:
            context = session.context("fit", QUESTION)
            step = await open_step(context, models[0], QUESTION)
            ids = step.vocabulary.encode(b"the lazy dog")
            traced = await step.trace(ids, hidden=True)
            seen = await step.peek(full=True)
            module = models[0].engine.loaded["m0"].module
            with torch.inference_mode():
                out = module(torch.tensor([[*step.opened.prompt, *ids]]), use_cache=False, output_hidden_states=True)
            return len(step.opened.prompt), ids, traced, seen, out

    start, ids, traced, seen, out = asyncio.run(main())
    assert float(seen.full.exp().sum()) == pytest.approx(1, abs=1e-5) and len(seen.full) == len(TOKENIZER)
    table = out.logits[0].log_softmax(-1)
    assert traced.logprobs == pytest.approx([float(table[start - 1 + n, t]) for n, t in enumerate(ids)], abs=1e-4)
    # the head reads the state that the next token is predicted from
    assert torch.allclose(traced.hidden, out.hidden_states[-1][0, start - 1 :], atol=1e-4)


def test_another_setting_is_fitted_anew():
    cache, models = Cache(None), pool(1, 2)

    def head(**options):
        settings = CoLLMOptions(**{**QUICK, "deferral_threshold": 0.5, **options})
        found = []
        outcome = run_method(
            CoLLM(settings),
            models,
            dev=examples(4, prefix="d"),
            questions=example_questions(2),
            sampling=Sampling(max_new_tokens=5),
            cache=cache,
            after_fit=lambda system: found.extend(system.head),
        )
        return found, outcome.texts

    first, again = head(), head()
    assert first == again
    for changed in ({"epochs": 3}, {"learning_rate": 0.05}, {"init": "none"}):
        assert head(**changed)[0] != first[0], changed


def grammar(n=600):
    """A toy grammar: after the marker state only the assistant knows the next token; elsewhere only the base does."""
    g = torch.Generator().manual_seed(0)
    knows = torch.rand(n, generator=g) < 0.3
    hidden = torch.randn(n, 8, generator=g) * 0.3
    hidden[:, 0] += torch.where(knows, 2.0, -2.0)
    good, bad = torch.full((n,), -0.01), torch.full((n,), -6.0)
    target = torch.arange(n)
    return knows, Positions(
        hidden=hidden,
        base=torch.where(knows, bad, good),
        assistant=torch.where(knows, good, bad),
        base_top=torch.where(knows, target + 1, target),
        assistant_top=torch.where(knows, target, target + 1),
        target=target,
    )


@pytest.mark.parametrize("init", ["a", "b", "none"])
def test_the_head_learns_where_only_the_assistant_knows(init):
    knows, positions = grammar()
    head = train_head(positions, CoLLMOptions(init=init, learning_rate=0.05, epochs=150), torch.zeros(8))
    sigma = (positions.hidden @ head).sigmoid()
    assert sigma[knows].min() > 0.9 and sigma[~knows].max() < 0.1
    if init == "a":
        assert torch.equal(weak_labels(positions, "a").bool(), knows)
    assert torch.equal(
        head, train_head(positions, CoLLMOptions(init=init, learning_rate=0.05, epochs=150), torch.zeros(8))
    )


def test_calibration():
    g = torch.Generator().manual_seed(1)
    sigma = torch.rand(97, generator=g)
    for share in (0.0, 0.1, 0.5, 0.93, 1.0):
        eta = threshold_for_fraction(sigma, share)
        assert abs(float((sigma > eta).float().mean()) - share) <= 1 / 97
    differs = sigma > 0.6
    eta = youden(sigma, differs)
    assert torch.equal(sigma > eta, differs)
    assert youden(sigma, torch.zeros(97, dtype=torch.bool)) == 1.0


# -------------------------------------------------------------------- bad input


def test_training_the_base_names_the_toolkit():
    with pytest.raises(CapabilityError, match="moco-toolkit-training"):
        run_method(CoLLM(CoLLMOptions(train="full")), pool(1, 2), dev=examples(2, prefix="d"))


def test_tokenizers_that_differ_in_one_id_are_refused_before_training():
    engine = LocalEngine()
    changed = bpe_tokenizer(texts=("the quick brown fox jumps over the lazy cat",))
    models = [engine.add("a", tiny_llama(TOKENIZER, 1), TOKENIZER), engine.add("b", tiny_gpt2(changed, 1), changed)]
    problems = CoLLM(CoLLMOptions()).needs().problems(models)
    assert "the tokenizers of 'a' and 'b' differ: id" in problems[0]
    with pytest.raises(CapabilityError, match="differ: id"):
        run_method(CoLLM(CoLLMOptions(**QUICK)), models, dev=examples(2, prefix="d"))


@pytest.mark.parametrize(
    ("options", "what"),
    [({"deferral_threshold": 1.5}, "deferral_threshold"), ({"draft_len": 0}, "draft_len"), ({"init": "c"}, "init")],
)
def test_bad_options(options, what):
    with pytest.raises(ConfigError, match=what):
        build(CoLLMOptions, options)


def test_bad_pools():
    assert "index 3 is out of range" in CoLLM(CoLLMOptions(assistant=3)).needs().problems(pool(1, 2))[0]
    with pytest.raises(ConfigError, match="dev"):
        run_method(CoLLM(CoLLMOptions()), pool(1, 2))
