"""Fitting on models: the texts that are learnt from, the threshold that is chosen, and what is noted of it."""

from __future__ import annotations

import asyncio

import attrs
from deferring_models import QUESTION, QUICK, pool

from moco_core import Example, Pool, Question, Sampling
from moco_core.runtime.cache import Cache
from moco_method_co_llm import fitting
from moco_method_co_llm.head import END, weak_labels
from moco_method_co_llm.method import CoLLM
from moco_method_co_llm.options import Options
from moco_toolkit_authoring import example_questions, examples, run_method
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding.testing import LocalEngine, ScriptedModule, word_tokenizer


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
        async with open_state() as state:
            context = state.context("fit", QUESTION)
            example = Example(question=QUESTION)
            written = await fitting._accepted(
                models[1], Example(question=QUESTION, references=("a",)), state.context("fit", QUESTION)
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
        async with open_state(sampling=Sampling(max_new_tokens=8)) as state:
            found = await fitting._targets(models, Options(targets=targets), dev, state.context("fit"))
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
        async with open_state(sampling=Sampling(max_new_tokens=8)) as state:
            state.on_note = lambda phase, note: notes.append(note)
            dev = [Example(question=Question(id=f"d{i}", prompt="go"), references=("b",)) for i in range(8)]
            return await CoLLM(Options(targets="either", epochs=40, quantiles=4)).fit(
                Pool(saying(A, B)), dev, state.context("fit")
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
    assert not outcome.errors and "count as empty replies" in outcome.warnings[0]
