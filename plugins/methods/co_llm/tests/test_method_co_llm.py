"""Co-LLM: the loss against finite differences, the head on a toy grammar, decoding against single models."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import attrs
import pytest
import torch

from moco_core import CapabilityError, ConfigError, Example, Pool, Question, Sampling
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_method_co_llm import fitting
from moco_method_co_llm.head import END, Positions, deferral_loss, train_head, weak_labels
from moco_method_co_llm.method import CoLLM
from moco_method_co_llm.options import Options
from moco_method_co_llm.thresholds import candidates, schedule, threshold_for_fraction, youden
from moco_method_co_llm.writing import write
from moco_toolkit_authoring import example_questions, examples, method_checks, run_method
from moco_toolkit_authoring.harness import open_session
from moco_toolkit_decoding import auroc
from moco_toolkit_decoding import open_session as open_step
from moco_toolkit_decoding.handover import reply_of
from moco_toolkit_decoding.testing import (
    LocalEngine,
    ScriptedModule,
    bpe_tokenizer,
    tiny_gpt2,
    tiny_llama,
    word_tokenizer,
)

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
            data = await write(models, QUESTION, Options(**options), head, eta, context)
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
        settings = Options(**{**QUICK, "deferral_threshold": 0.5, **options})
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


@pytest.mark.parametrize("init", ["a", pytest.param("b", marks=pytest.mark.slow), "none"])
def test_the_head_learns_where_only_the_assistant_knows(init):
    knows, positions = grammar()
    head = train_head(positions, Options(init=init, learning_rate=0.05, epochs=150), torch.zeros(8))
    sigma = (positions.hidden @ head).sigmoid()
    assert sigma[knows].min() > 0.9 and sigma[~knows].max() < 0.1
    if init == "a":
        assert torch.equal(weak_labels(positions, "a").bool(), knows)
    assert torch.equal(head, train_head(positions, Options(init=init, learning_rate=0.05, epochs=150), torch.zeros(8)))


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


def test_youden_and_the_area_under_the_curve_equal_their_definitions():
    g = torch.Generator().manual_seed(3)
    for n in (2, 7, 60):
        sigma = (torch.rand(n, generator=g) * 10).round() / 10  # with ties
        wanted = torch.rand(n, generator=g) < 0.4
        wanted[0], wanted[1] = True, False
        yes, no = sigma[wanted].tolist(), sigma[~wanted].tolist()
        assert auroc(sigma.tolist(), wanted.tolist()) == pytest.approx(
            sum((a > b) + 0.5 * (a == b) for a in yes for b in no) / (len(yes) * len(no))
        )

        def rate(eta, yes=yes, no=no):
            return sum(a > eta for a in yes) / len(yes) - sum(b > eta for b in no) / len(no)

        best = max(rate(eta / 20 - 0.025) for eta in range(23))
        assert rate(youden(sigma, wanted)) == pytest.approx(max(best, 0.0))
    assert auroc([1.0, 2.0], [True, True]) is None


def test_thresholds_to_choose_from_begin_with_the_least_deferral():
    sigma = torch.linspace(0.1, 0.9, 9)
    found = candidates(sigma, sigma > 0.5, Options(quantiles=4))
    assert found[0] == 1.0 and found[-1] == 0.0 and found == sorted(found, reverse=True) and len(found) == 5
    noisy = sigma + 1e-8 * torch.randn(9, generator=torch.Generator().manual_seed(0))
    assert candidates(noisy, sigma > 0.5, Options(quantiles=4)) == found  # the last bits depend on the batch


# -------------------------------------------------------------------- fitting on models


WORDS = word_tokenizer(["The", " answer", " is", " a", " b", "<turn>"])
TURN = WORDS.get_vocab()["<turn>"]


def saying(*replies, end=0, ends=None, **settings):
    """Models that say a fixed list of tokens each and close with the token ``end``."""
    engine = LocalEngine()

    def following(reply):
        ids = [WORDS.get_vocab()[token.replace(" ", "\u0120")] for token in reply]

        def scores(read):
            said = next((n for n in range(len(ids), 0, -1) if read[-n:] == ids[:n]), 0)
            return {ids[said] if said < len(ids) else end: 10.0}

        return scores

    return [
        engine.add(f"m{i}", ScriptedModule(len(WORDS), following(r)), WORDS, ends=ends, **settings)
        for i, r in enumerate(replies)
    ]


A, B = ["The", " answer", " is", " a"], ["The", " answer", " is", " b"]


def test_the_threshold_is_chosen_on_held_out_questions_whoever_answers_them_right():
    """The base model is right on three questions of four, the assistant on the others: nothing is gained by deferring."""
    dev = [Example(question=Question(id=f"d{i}", prompt="go"), references=("ab"[i // 2 % 4 == 3],)) for i in range(16)]
    outcome = run_method(
        CoLLM(Options(targets="assistant", held_out=0.5, epochs=20)),
        saying(A, B),
        dev=dev,
        questions=[Question(id="q", prompt="go")],
        sampling=Sampling(max_new_tokens=8),
    )
    assert outcome.state["threshold"] == 1.0 and outcome.texts == {"q": "The answer is a"}
    learn, held = fitting.split(dev, 0.5)
    assert {e.id for e in learn}.isdisjoint(e.id for e in held) and len(held) == 8
    assert {e.references[0] for e in held} == {"a", "b"} == {e.references[0] for e in learn}


def test_an_end_counts_as_an_end_whichever_token_says_so():
    """Both models close a turn with one end token and have another one with a lower id."""
    models = saying(A, A, end=TURN, ends={0, TURN})

    async def main():
        async with open_session() as session:
            context = session.context("fit", QUESTION)
            example = Example(question=QUESTION)
            written = await fitting._accepted(
                models[1], Example(question=QUESTION, references=("a",)), session.context("fit", QUESTION)
            )
            return written, [
                (await fitting._read(models, example, target, Options(), context)).positions
                for target in (written, "The answer is a")
            ]

    written, (by_ids, by_text) = asyncio.run(main())
    assert written[-1] == TURN  # the assistant's own tokens
    for found in (by_ids, by_text):
        assert found.target.tolist()[-1] == END == found.base_top.tolist()[-1] == found.assistant_top.tolist()[-1]
        assert found.base[-1] > -0.01 and found.assistant[-1] > -0.01 and len(found.hidden) == len(found.target)
    assert by_ids.target.tolist()[:-1] == [WORDS.get_vocab()[t.replace(" ", "\u0120")] for t in A]
    assert not weak_labels(by_ids, "b").any()


def test_texts_to_learn_from():
    models = saying(A, B)
    both = Example(question=Question(id="c", prompt="go", choices=("x", "y")), answer=0)
    dev = [both, Example(question=Question(id="t", prompt="go"), references=("b",))]

    async def texts(targets):
        async with open_session(sampling=Sampling(max_new_tokens=8)) as session:
            found = await fitting._targets(models, Options(targets=targets), dev, session.context("fit"))
            return {
                k: [t if isinstance(t, str) else WORDS.decode(t, skip_special_tokens=True) for t in v]
                for k, v in found.items()
            }

    assert asyncio.run(texts("gold")) == {"c": ["The answer is A."], "t": ["b"]}
    assert asyncio.run(texts("assistant")) == {"t": ["The answer is b"]} == asyncio.run(texts("auto"))
    assert asyncio.run(texts("either")) == {"c": ["The answer is a"], "t": ["The answer is b"]}
    dev = dev[:1]
    assert asyncio.run(texts("assistant")) == {}
    assert asyncio.run(texts("auto")) == {"c": ["The answer is A."]}


def test_fitting_again_reads_nothing_again_however_many_questions_were_in_flight(tmp_path):
    def fit(in_flight):
        models, heads = pool(1, 2), []
        outcome = run_method(
            CoLLM(Options(**QUICK)),
            models,
            dev=examples(6, prefix="d"),
            questions=example_questions(2),
            sampling=Sampling(max_new_tokens=5),
            in_flight=in_flight,
            cache=Cache(tmp_path / "calls.sqlite"),
            after_fit=lambda system: heads.append(system.head),
        )
        engine = models[0].engine
        return outcome, heads, sum(engine.calls.values()) + sum(one.forwards for one in engine.loaded.values())

    first, head, work = fit(8)
    again, same, more = fit(1)
    assert work > 0 and more == 0
    assert (again.state, same, again.texts) == (first.state, head, first.texts)
    assert again.calls == first.calls  # what the cache spared is counted as the work it was


def test_what_deferral_costs_and_brings_is_noted():
    notes = []

    async def main():
        async with open_session(sampling=Sampling(max_new_tokens=8)) as session:
            session.on_note = lambda phase, note: notes.append(note)
            dev = [Example(question=Question(id=f"d{i}", prompt="go"), references=("b",)) for i in range(8)]
            return await CoLLM(Options(targets="either", epochs=40, quantiles=4)).fit(
                Pool(saying(A, B)), dev, session.context("fit")
            )

    system = asyncio.run(main())
    (report,) = (n for n in notes if "auroc" in n)
    assert report["held_out_texts"] == 2 and report["held_out_positions"] == 10  # four words and the end, twice
    # the base model knows neither the last word nor that the reply ends behind it
    assert report["assistant_alone_right"] == 0.4 and report["auroc"] > 0.5
    curve = [(n["threshold"], n["score"], n["deferred"]) for n in notes if "deferred" in n]
    assert curve[0] == (1.0, 0.0, 0.0) and curve[-1] == (0.0, 1.0, 1.0)
    assert [d for *_, d in curve] == sorted(d for *_, d in curve)
    # the head sees the last token's number alone: who defers behind " is" does so behind all tokens above it, four of five
    assert notes[-1] == {"threshold": system.threshold, "deferred_positions": 0.8}
    assert {t: s for t, s, _ in curve}[system.threshold] == 1.0


def test_a_dev_question_that_is_too_long_costs_its_score_and_nothing_else():
    models = pool(1, 2)
    models[0].engine.loaded["m0"].context_length = 120
    dev = examples(4, prefix="d")
    dev[0] = attrs.evolve(dev[0], question=attrs.evolve(dev[0].question, prompt="very long " * 60))
    outcome = run_method(
        CoLLM(Options(**QUICK)), models, dev=dev, questions=example_questions(1), sampling=Sampling(max_new_tokens=5)
    )
    assert not outcome.errors and "count as answered with nothing" in outcome.warnings[0]


# -------------------------------------------------------------------- bad input


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
